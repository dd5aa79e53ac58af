"""Checkpoints in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.training.checkpoints import (
    Found,
    complete_checkpoint,
    fetch_checkpoint,
    find_checkpoint,
    remove_checkpoints,
    upload_part,
)

OUTPUT = "artifacts/sft/abc"
LAYOUT = {"ranks": 1, "zero_stage": 2}
LOG = structlog.get_logger()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-5"
    (folder / "global_step5").mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "global_step5" / "state.pt").write_bytes(b"weights")
    return folder


def save(store: Store, folder: Path, step: int, attempt: str = "a1", layout: dict[str, int] = LAYOUT) -> None:
    files = upload_part(store, OUTPUT, folder, step=step, attempt=attempt)
    complete_checkpoint(store, OUTPUT, files, step=step, attempt=attempt, layout=layout)


def find(store: Store, scratch: Path, layout: dict[str, int] = LAYOUT) -> Found | None:
    return find_checkpoint(store, OUTPUT, scratch, layout, LOG)


def test_what_was_saved_is_found_with_its_bytes(file_store: Store, written: Path, tmp_path: Path) -> None:
    save(file_store, written, 5)
    found = find(file_store, tmp_path)
    assert found is not None and found.step == 5
    assert (found.folder / "global_step5" / "state.pt").read_bytes() == b"weights"


def test_saving_removes_those_before_it(file_store: Store, written: Path, tmp_path: Path) -> None:
    for step in (5, 10):
        save(file_store, written, step)
    steps = {key.split("/")[-2] for key, _ in file_store.list(OUTPUT) if key.endswith("complete.json")}
    assert steps == {"step-00000010"}


def test_the_parts_of_several_pods_are_one_checkpoint_once_all_are_there(
    file_store: Store, written: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other-pod"
    (other / "global_step5").mkdir(parents=True)
    (other / "global_step5" / "rank1.pt").write_bytes(b"more")
    files = {}
    for folder in (written, other):
        files |= upload_part(file_store, OUTPUT, folder, step=5, attempt="a1")
    assert find(file_store, tmp_path) is None
    complete_checkpoint(file_store, OUTPUT, files, step=5, attempt="a1", layout=LAYOUT)
    found = find(file_store, tmp_path)
    assert found is not None
    names = {path.name for path in found.folder.rglob("*.*")}
    assert names == {"trainer_state.json", "state.pt", "rank1.pt"}
    assert fetch_checkpoint(file_store, found.marker, tmp_path) == found


def test_a_checkpoint_that_another_pod_read_otherwise_is_tried_again(
    file_store: Store, written: Path, tmp_path: Path
) -> None:
    save(file_store, written, 5)
    found = find(file_store, tmp_path)
    assert found is not None
    remove_checkpoints(file_store, OUTPUT)
    with pytest.raises(StageError) as caught:
        fetch_checkpoint(file_store, found.marker, tmp_path)
    assert caught.value.code == ExitCode.STORE


def test_without_its_marker_a_checkpoint_is_not_there(file_store: Store, written: Path, tmp_path: Path) -> None:
    save(file_store, written, 5)
    file_store.delete([f"{OUTPUT}/checkpoints/step-00000005/complete.json"])
    assert find(file_store, tmp_path) is None


def test_a_flipped_byte_is_noticed_and_the_training_begins_anew(
    file_store: Store, written: Path, tmp_path: Path
) -> None:
    save(file_store, written, 5)
    key = next(key for key, _ in file_store.list(OUTPUT) if key.endswith("state.pt"))
    file_store.put(key, b"Weights")
    assert find(file_store, tmp_path) is None


def test_another_number_of_ranks_does_not_take_it(file_store: Store, written: Path, tmp_path: Path) -> None:
    save(file_store, written, 5)
    assert find(file_store, tmp_path, {"ranks": 2, "zero_stage": 2}) is None


def test_a_second_process_at_the_same_step_does_no_harm(file_store: Store, written: Path, tmp_path: Path) -> None:
    save(file_store, written, 5, "a1")
    (written / "global_step5" / "state.pt").write_bytes(b"others!")
    save(file_store, written, 5, "a2")
    found = find(file_store, tmp_path)
    assert found is not None
    assert (found.folder / "global_step5" / "state.pt").read_bytes() == b"others!", "the later one, whole"


@pytest.mark.parametrize("layout", [LAYOUT, {"ranks": 8, "zero_stage": 3}])
def test_a_marker_that_cannot_be_used_gives_way(
    file_store: Store, written: Path, tmp_path: Path, layout: dict[str, int]
) -> None:
    save(file_store, written, 5, layout=layout)
    if layout == LAYOUT:
        file_store.put(f"{OUTPUT}/checkpoints/step-00000005/complete.json", b"{")
    save(file_store, written, 5, "a2")
    found = find(file_store, tmp_path)
    assert found is not None and found.step == 5


def test_removing_leaves_nothing(file_store: Store, written: Path) -> None:
    save(file_store, written, 5)
    remove_checkpoints(file_store, OUTPUT)
    assert list(file_store.list(OUTPUT)) == []
