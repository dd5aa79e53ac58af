"""What is rendered is what the golden files say, and the golden files are all there is."""

from __future__ import annotations

import pytest

from tests.k8s.golden import FOLDER, manifests, text

MANIFESTS = manifests()


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_as_its_golden_file_says(name: str) -> None:
    expected = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text(MANIFESTS[name]) == expected, "meant? python -m tests.k8s.golden writes the files again"


def test_every_golden_file_is_rendered_by_something() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MANIFESTS)
