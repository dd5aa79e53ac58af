"""A folder of the cache is whole or not there."""

from pathlib import Path

import pytest

from stages.models.cache import made_once


def test_a_failed_making_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        made_once(tmp_path / "model", fail)
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_throws_its_own_away(tmp_path: Path) -> None:
    def overtaken(folder: Path) -> None:
        made_once(tmp_path / "model", lambda other: (other / "by").write_text("first") and None)
        (folder / "by").write_text("second")

    made_once(tmp_path / "model", overtaken)
    assert (tmp_path / "model" / "by").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_other_users_can_read_what_is_made(tmp_path: Path) -> None:
    def private(folder: Path) -> None:
        (folder / "weights").touch(mode=0o600)

    folder = made_once(tmp_path / "model", private)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "weights").stat().st_mode & 0o777 == 0o644
