"""How many ranks a machine gets by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.contract.devices import visible_gpus

FILES = ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm")


@pytest.mark.parametrize(
    ("files", "named", "expected"),
    [
        ((), None, 0),
        (FILES, None, 3),
        (FILES, "0,2", 2),
        (FILES, "", 0),
        (FILES, "-1", 0),
        ((), "0,1", 0),
    ],
)
def test_gpus_are_those_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: tuple[str, ...], named: str | None, expected: int
) -> None:
    for name in files:
        (tmp_path / name).touch()
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus(tmp_path) == expected
