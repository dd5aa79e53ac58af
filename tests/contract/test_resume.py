"""Killed, doubled and raced shards end with the rows of an undisturbed run."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.contract.artifact import Artifact
from stages.contract.context import shard_bounds
from stages.contract.errors import ExitCode, StageError
from stages.contract.execute import run_shard
from stages.contract.manifest import Layout, chunk_key, manifest_key, published_shards, read_manifest
from stages.contract.store import FileStore, Store
from stages.contract.task import Shards, Task, write_task
from tests.contract.builders import WHOLE, lines, lines_task, products, run_shards, undisturbed
from tests.support import make_task, stage_process, start_stage

ROWS, CHUNK_ROWS = 60, 2
KILLS = 3
PAUSE_S = 0.04


def begun(diary: Path) -> list[str]:
    return diary.read_text().split() if diary.exists() else []


def shards_of(task: Task, *indices: int) -> Task:
    """The same task for some shards only."""
    return task.model_copy(update={"shards": Shards(count=task.shards.count, indices=indices)})


def test_a_shard_killed_again_and_again_repeats_at_most_the_chunk_it_was_in(
    either_store: Store, tmp_path: Path
) -> None:
    diary, chance = tmp_path / "diary", random.Random(11)
    task = lines_task(either_store, ROWS, chunk_rows=CHUNK_ROWS, times=5, pause_s=PAUSE_S, diary=str(diary))
    uri = write_task(either_store, task)
    for _ in range(KILLS):
        process = start_stage(uri)
        goal = len(begun(diary)) + chance.randint(1, 5)
        while process.poll() is None and len(begun(diary)) < goal:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 2 * PAUSE_S))
        process.kill()
        process.communicate()
    assert read_manifest(either_store, task.output) is None
    done = stage_process(uri)
    assert done.returncode == 0, done.stderr
    artifact = Artifact(either_store, task.output)
    assert artifact.table().to_pylist() == products(ROWS, 5)
    assert artifact.manifest.digest == undisturbed(tmp_path, ROWS, times=5)
    times = Counter(begun(diary))
    assert set(times) == {f"0:{number}" for number in range(ROWS // CHUNK_ROWS)}
    assert sum(times.values()) <= ROWS // CHUNK_ROWS + KILLS


def test_two_processes_of_one_shard_do_no_harm(either_store: Store, tmp_path: Path) -> None:
    task = lines_task(either_store, ROWS, chunk_rows=CHUNK_ROWS, pause_s=0.01, diary=str(tmp_path / "diary"))
    uri = write_task(either_store, task)
    processes = [start_stage(uri), start_stage(uri)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    artifact = Artifact(either_store, task.output)
    assert artifact.table().to_pylist() == products(ROWS)
    assert artifact.manifest.digest == undisturbed(tmp_path, ROWS)
    assert artifact.manifest.tables == {"rows": ROWS}
    assert len(set(begun(tmp_path / "diary"))) < len(begun(tmp_path / "diary"))  # they did meet


def test_many_threads_of_every_shard_make_one_artifact(store: Store) -> None:
    task = lines_task(store, 12, shards=2, chunk_rows=1)
    work = [0, 1] * 3
    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(lambda shard: run_shard(store, task, shard, threading.Event()), work))
    assert Artifact(store, task.output).table().to_pylist() == products(12)


def test_the_last_two_shards_finishing_at_once_publish_one_artifact(store: Store) -> None:
    for times in range(3):
        task = lines_task(store, 6, shards=3, chunk_rows=2, times=times)
        run_shards(store, task, [0])
        gate = threading.Barrier(2)

        def last(shard: int, task: Task = task, gate: threading.Barrier = gate) -> None:
            gate.wait()
            run_shard(store, task, shard, threading.Event())

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(last, (1, 2)))
        assert Artifact(store, task.output).table().to_pylist() == products(6, times)


def test_another_finalises_where_the_last_process_died_before_it(store: Store) -> None:
    from stages.contract.chunks import finalise

    task = lines_task(store, 8, shards=2)
    layout = Layout(shards=2, chunk_rows=4)
    run_shards(store, task, [0])
    assert finalise(store, task, layout) is None
    run_shards(store, task, [1])
    first = read_manifest(store, task.output)
    store.delete([manifest_key(task.output)])
    assert published_shards(store, task.output) == {0, 1}
    again = finalise(store, task, layout)
    assert first is not None and again is not None and again.digest == first.digest
    store.delete([manifest_key(task.output)])
    run_shards(store, task, [0])  # a shard that is published already finalises as well
    assert Artifact(store, task.output).manifest.digest == first.digest


def test_a_published_shard_is_not_done_again(file_store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    task = lines_task(file_store, 8, diary=str(diary))
    run_shards(file_store, task, [0, 0])
    assert begun(diary) == ["0:0", "0:1"]


def test_a_chunk_whose_data_were_removed_is_done_again(store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    task = lines_task(store, 12, diary=str(diary), fault="bug", fault_at=2)
    with pytest.raises(KeyError):
        run_shards(store, task, [0])
    data = [each.key for each in store.list(f"{task.output}/") if "chunk-00001" in each.key and "attempt" in each.key]
    store.delete(data)
    healed = task.model_copy(update={"settings": {**task.settings, "fault": ""}})
    run_shards(store, healed, [0])
    assert begun(diary) == ["0:0", "0:1", "0:2", "0:1", "0:2"]
    assert Artifact(store, task.output).table().to_pylist() == products(12)


def test_failed_shards_alone_run_again(file_store: Store) -> None:
    task = lines_task(file_store, 40, shards=5)
    run_shards(file_store, task, [0, 2, 4])
    again = shards_of(task, 1, 3).model_copy(update={"attempt": 2})
    uri = write_task(file_store, again)
    assert [stage_process(uri, index).returncode for index in (0, 1)] == [0, 0]
    artifact = Artifact(file_store, task.output)
    assert artifact.table().to_pylist() == products(40)
    assert [each.attempt for each in artifact.shards()] == [1, 2, 1, 2, 1]


def test_the_layout_is_what_the_first_task_chose(store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    task = lines_task(store, 20, shards=2, chunk_rows=5)
    run_shards(store, task, [0])
    other = task.model_copy(update={"settings": {"chunk_rows": 2, "diary": str(diary)}})
    run_shards(store, other, [1])
    assert begun(diary) == ["1:0", "1:1"]  # chunks of 5 rows, not of 2
    assert Artifact(store, task.output).table().to_pylist() == products(20)


def test_another_number_of_shards_is_refused(store: Store) -> None:
    task = lines_task(store, 20, shards=2)
    run_shards(store, task, [0])
    other = task.model_copy(update={"shards": Shards(count=3, indices=(0, 1, 2))})
    with pytest.raises(StageError, match="begun with 2 shards, the task says 3") as caught:
        run_shards(store, other, [1])
    assert caught.value.code is ExitCode.BAD_SETTINGS
    assert caught.value.where == task.output


def test_a_stage_that_returns_early_publishes_nothing(file_store: Store) -> None:
    task = lines_task(file_store, 12, fault="early", fault_at=1)
    with pytest.raises(AssertionError, match="before chunk 1 was committed"):
        run_shards(file_store, task, [0])
    assert published_shards(file_store, task.output) == set()


def test_more_shards_than_rows_leave_some_empty(store: Store) -> None:
    assert lines(store, 3, shards=5, chunk_rows=1).table().to_pylist() == products(3)


def test_an_unsharded_stage_can_be_killed_and_started_again(file_store: Store) -> None:
    task = make_task(WHOLE, {"wait_s": 30})
    process = start_stage(write_task(file_store, task))
    while not list(file_store.list(f"{task.output}/")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    run_shards(file_store, task.model_copy(update={"settings": {}}), [0])
    assert Artifact(file_store, task.output).table().to_pylist() == [{"word": "hello"}]


@pytest.mark.parametrize(("rows", "shards", "chunk_rows"), [(0, 3, 4), (1, 3, 4), (100, 7, 3), (12, 3, 4), (5, 1, 9)])
def test_shards_take_contiguous_blocks_of_whole_chunks(rows: int, shards: int, chunk_rows: int) -> None:
    layout = Layout(shards=shards, chunk_rows=chunk_rows)
    bounds = [shard_bounds(rows, shard, layout) for shard in range(shards)]
    assert [each for first, last in bounds for each in range(first, last)] == list(range(rows))
    assert all(first % chunk_rows == 0 or first == rows for first, _ in bounds)
    sizes = [-(-(last - first) // chunk_rows) for first, last in bounds]
    assert max(sizes) - min(sizes) <= 1


def test_a_chunk_committed_by_another_process_counts(file_store: Store) -> None:
    """Both were in the same chunk: the second takes over the record of the first."""
    task = lines_task(file_store, 8, chunk_rows=4)
    gate = threading.Barrier(2)

    class Together(FileStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key == chunk_key(task.output, 0, 0):
                gate.wait(timeout=20)
            return super().put_if_absent(key, data)

    assert isinstance(file_store, FileStore)
    slow = Together(file_store.root)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: run_shard(slow, task, 0, threading.Event()), range(2)))
    assert Artifact(file_store, task.output).table().to_pylist() == products(8)
