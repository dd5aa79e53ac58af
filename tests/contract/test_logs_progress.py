"""Logs and progress are in the store while a stage runs, and after it was killed."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import pytest

from stages.contract import logs, progress
from stages.contract.ledger import Ledger, Meter, add_ledgers
from stages.contract.logs import log_prefix, read_log
from stages.contract.progress import Progress, ProgressRecord, progress_key
from stages.contract.store import FileStore, Store
from stages.contract.task import write_task
from tests.contract.builders import WHOLE, lines_task, run_shards
from tests.support import RUN, make_task, stage_process, start_stage


def test_the_log_holds_what_a_stage_and_its_children_print(file_store: Store) -> None:
    task = lines_task(file_store, 12, fault="bug", fault_at=2)
    done = stage_process(write_task(file_store, task))
    log = read_log(file_store, log_prefix(RUN, task.node, 1, 0))
    for line in ("chunk 0 of shard 0", "chunk 2 of shard 0", "Traceback", "KeyError"):
        assert line in log
        assert line in done.stdout + done.stderr


def test_quiet_keeps_the_log_and_spares_the_terminal(file_store: Store) -> None:
    task = lines_task(file_store, 4)
    done = stage_process(write_task(file_store, task), env={"MONTESSORI_LOG_QUIET": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "chunk 0 of shard 0" in read_log(file_store, log_prefix(RUN, task.node, 1, 0))


def test_a_log_survives_sigkill_up_to_its_last_seconds(file_store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    task = lines_task(file_store, 1000, chunk_rows=1, pause_s=0.1, diary=str(diary))
    process = start_stage(write_task(file_store, task))
    while not diary.exists() or len(diary.read_text().split()) < 10:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    printed = len(diary.read_text().split()) - 1  # the last one may have been noted and not yet printed
    time.sleep(logs.INTERVAL_S + 1)
    process.kill()
    process.communicate()
    log = read_log(file_store, log_prefix(RUN, task.node, 1, 0))
    assert printed > 0
    assert [f"chunk {number} of" in log for number in range(printed)] == [True] * printed


def test_the_log_goes_on_where_an_earlier_process_stopped(file_store: Store) -> None:
    task = lines_task(file_store, 8, fault="bug", fault_at=1)
    uri = write_task(file_store, task)
    stage_process(uri)
    stage_process(uri)
    log = read_log(file_store, log_prefix(RUN, task.node, 1, 0))
    assert log.count("chunk 1 of shard 0") == 2
    assert log.count("chunk 0 of shard 0") == 1


def test_two_processes_of_a_shard_keep_both_logs(file_store: Store) -> None:
    task = make_task(WHOLE, {"wait_s": 1})
    uri = write_task(file_store, task)
    processes = [start_stage(uri) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
    assert read_log(file_store, log_prefix(RUN, task.node, 1, 0)).count("the word is hello") == 2


def test_a_terminal_that_goes_away_does_not_stop_a_stage(file_store: Store) -> None:
    task = lines_task(file_store, 300, chunk_rows=1, padding=2000)  # far more than a pipe holds
    process = start_stage(write_task(file_store, task))
    assert isinstance(process, subprocess.Popen) and process.stderr and process.stdout
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=90) == 0
    assert "chunk 299 of shard 0" in read_log(file_store, log_prefix(RUN, task.node, 1, 0))


def test_progress_tells_what_is_done_of_what(file_store: Store) -> None:
    task = lines_task(file_store, 20, shards=2, chunk_rows=3)
    run_shards(file_store, task, [0])
    record = ProgressRecord.model_validate_json(file_store.get(progress_key(RUN, task.node, 0)))
    assert (record.shard, record.attempt, record.phase) == (0, 1, "done")
    assert (record.done, record.total, record.unit) == (9, 9, "rows")
    assert record.rate is not None and record.rate > 0


def test_progress_says_that_a_stage_failed_and_where(file_store: Store) -> None:
    task = lines_task(file_store, 20, fault="bug", fault_at=2)
    with pytest.raises(KeyError):
        run_shards(file_store, task, [0])
    record = ProgressRecord.model_validate_json(file_store.get(progress_key(RUN, task.node, 0)))
    assert (record.phase, record.done, record.total) == ("failed", 8, 20)


def test_what_an_earlier_attempt_did_counts_as_done_and_not_in_the_rate(file_store: Store) -> None:
    counter = Progress(file_store, "p", 0, 2)
    counter.begin(100, done=90)
    assert (counter.record().done, counter.record().rate) == (90, None)
    counter.advance(5)
    time.sleep(0.01)
    rate = counter.record().rate
    assert rate is not None and 0 < rate <= 500


def test_rows_counted_inside_a_chunk_are_not_counted_twice(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toy.lines import stage

    commit, seen = stage.make_table, []

    def counting(*arguments: object) -> object:
        running.advance(4)
        seen.append(running.record().done)
        return commit(*arguments)  # type: ignore[arg-type]

    original = Progress.start
    running: Progress

    def start(self: Progress) -> None:
        nonlocal running
        running = self
        original(self)

    monkeypatch.setattr(Progress, "start", start)
    monkeypatch.setattr(stage, "make_table", counting)
    run_shards(file_store, lines_task(file_store, 12), [0])
    assert seen == [4, 8, 12]
    assert running.record().done == 12


def test_progress_is_written_again_while_nothing_changes(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.05)
    counter = Progress(file_store, "p", 0, 1)
    counter.start()
    stamps = set()
    end = time.monotonic() + 5
    while len(stamps) < 3 and time.monotonic() < end:
        stamps.add(file_store.get_or_none("p"))
        time.sleep(0.01)
    counter.close("done")
    assert len(stamps) >= 3


def test_a_store_that_is_away_costs_progress_and_log_and_not_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path / "store")
    monkeypatch.setattr(logs, "INTERVAL_S", 0.01)
    tee = logs.LogTee(store, "log/")
    tee._buffer += b"early "
    (tmp_path / "store").write_text("in the way")
    tee._flush()
    counter = Progress(store, "p", 0, 1)
    counter.start()
    counter.close("done")
    (tmp_path / "store").unlink()
    tee._buffer += b"late"
    tee._flush()
    assert read_log(store, "log/") == "early late"


def test_a_meter_adds_up_seconds_tokens_and_devices() -> None:
    meter = Meter()
    with meter.phase("compute", devices=4):
        time.sleep(0.02)
    with pytest.raises(ZeroDivisionError), meter.phase("load"):
        raise ZeroDivisionError
    meter.count(tokens=5, rows_in=2)
    meter.count(tokens=2, rows_kept=1)
    meter.peak(10)
    meter.peak(7)
    taken = meter.take()
    assert taken.device_seconds == pytest.approx(4 * taken.seconds["compute"])
    assert set(taken.seconds) == {"compute", "load"}
    assert (taken.tokens, taken.rows_in, taken.rows_kept, taken.peak_memory_bytes) == (7, 2, 1, 10)
    assert meter.take() == Ledger()


def test_ledgers_add_up_and_memory_is_the_largest() -> None:
    parts = [
        Ledger(seconds={"load": 1, "compute": 2}, tokens=3, peak_memory_bytes=5),
        Ledger(seconds={"compute": 4}, device_seconds=8, rows_in=1, peak_memory_bytes=4),
    ]
    total = add_ledgers(parts)
    assert total.seconds == {"load": 1, "compute": 6}
    assert (total.total_seconds, total.tokens, total.rows_in, total.peak_memory_bytes) == (7, 3, 1, 5)
    assert add_ledgers([]) == Ledger()


def test_threads_may_count_at_once(file_store: Store) -> None:
    counter = Progress(file_store, "p", 0, 1)
    counter.begin(8000)
    threads = [threading.Thread(target=lambda: [counter.advance() for _ in range(1000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.record().done == 8000
