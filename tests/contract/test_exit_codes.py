"""What `python -m stages` answers: one exit code for each kind of end, one line for a person's mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from stages.contract.clock import now
from stages.contract.execute import Outcome, execute, outcome_key
from stages.contract.store import FileStore, Store
from stages.contract.task import Shards, Task, write_task
from tests.contract.builders import WHOLE, lines_task, numbers, run_shards
from tests.support import REPOSITORY, RUN, make_task, stage_process, start_stage

FAULTS = [
    ("data", 65, "rows: row 3 has no text (look at the input)"),
    ("gate", 66, "yield 0.1 is below 0.5"),
    ("full", 69, "the local disk is full"),
    ("bug", 70, "KeyError: 'no such column'"),
    ("exit", 70, "SystemExit: 0"),
    ("early", 70, "the stage returned before chunk 1 was committed"),
    ("memory", 76, "out of memory"),
    ("accelerator", 76, "CUDA out of memory"),
]
BAD_TASKS: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown field", {"colour": "red"}, "colour"),
    ("an unknown setting", {"settings": {"tims": 3}}, "settings.tims"),
    ("a setting of another type", {"settings": {"times": "many"}}, "settings.times"),
    ("an unknown stage", {"stage": "alchemy"}, "there is no stage 'alchemy'"),
    ("a stage of nobody's", {"stage": "no.such.stage"}, "there is no stage 'no.such.stage'"),
    ("a run name that leaves its folder", {"run": "../x"}, "run"),
    ("an output that leaves the store", {"output": "artifacts/../../x"}, "output"),
    ("a shard outside the count", {"shards": {"count": 2, "indices": [2]}}, "not different shards of 2"),
    ("a shard named twice", {"shards": {"count": 2, "indices": [1, 1]}}, "not different shards of 2"),
    ("no shard", {"shards": {"count": 2, "indices": []}}, "indices"),
    ("a deadline without a time zone", {"deadline": "2030-01-01T00:00:00"}, "deadline"),
    ("an input that is a model", {"inputs": {"rows": {"kind": "model", "source": {}, "digest": "0"}}}, "is a model"),
    ("a missing input", {"inputs": {}}, "no input 'rows'"),
]


class Here(NamedTuple):
    """How a shard that ran in this process ended, and all that it printed."""

    code: int
    text: str


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Here]]:
    """`python -m stages` without the start of a process, which takes a second."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(uri: str, index: int | None = None) -> Here:
        code = execute(uri, index)
        out, errors = capfd.readouterr()
        return Here(code, out + errors)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    structlog.reset_defaults()  # it holds the captured stderr, which is closed by now


def outcome(store: Store, task: Task, shard: int = 0) -> Outcome:
    return Outcome.model_validate_json(store.get(outcome_key(RUN, task.node, task.attempt, shard)))


def run_cli(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages", *arguments], cwd=REPOSITORY, env=env, capture_output=True, text=True
    )


def test_success_is_0_and_recorded(file_store: Store) -> None:
    task = lines_task(file_store, 8)
    done = stage_process(write_task(file_store, task))
    assert done.returncode == 0, done.stderr
    found = outcome(file_store, task)
    assert (found.code, found.message, found.shard) == (0, "", 0)
    assert found.started <= found.finished


@pytest.mark.parametrize(("fault", "code", "message"), FAULTS, ids=[each[0] for each in FAULTS])
def test_each_kind_of_fault_has_its_code(
    fault: str, code: int, message: str, file_store: Store, run_here: Callable[..., Here]
) -> None:
    task = lines_task(file_store, 12, fault=fault, fault_at=1)
    done = run_here(write_task(file_store, task))
    assert done.code == code
    assert message in done.text
    found = outcome(file_store, task)
    assert found.code == code and message in found.message
    assert ("Traceback" in done.text) is (fault in {"bug", "exit", "early", "full", "accelerator"})
    assert file_store.get_or_none(f"{task.output}/shard-00000/chunk-00000.json")
    assert not file_store.get_or_none(f"{task.output}/manifest.json")


@pytest.mark.parametrize(("change", "text"), [each[1:] for each in BAD_TASKS], ids=[each[0] for each in BAD_TASKS])
def test_a_bad_task_is_64_and_one_line(
    change: dict[str, Any], text: str, file_store: Store, run_here: Callable[..., Here]
) -> None:
    task = lines_task(file_store, 8)
    file_store.put(task.key, json.dumps({**task.model_dump(mode="json"), **change}).encode())
    done = run_here(f"{file_store.uri}/{task.key}")
    assert done.code == 64
    assert len([each for each in done.text.splitlines() if text in each]) == 1
    assert "Traceback" not in done.text


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff\xfe"])
def test_what_is_no_task_is_64_and_one_line(data: bytes, file_store: Store, run_here: Callable[..., Here]) -> None:
    file_store.put("runs/test/tasks/a-1.json", data)
    done = run_here(f"{file_store.uri}/runs/test/tasks/a-1.json")
    assert (done.code, done.text.count("\n")) == (64, 1)
    assert "not a valid task" in done.text


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("file:///nowhere/runs/r/tasks/a-1.json", "there is no such task"),
        ("/tmp/task.json", "not the URI of a task"),
        ("runs/r/tasks/a-1.json", "not the URI of a task"),
        ("", "not the URI of a task"),
        ("gs://bucket/runs/r/tasks/a-1.json", "unknown kind of store"),
        ("s3:///runs/r/tasks/a-1.json", "needs a bucket"),
    ],
)
def test_a_bad_uri_is_64_and_one_line(uri: str, text: str, run_here: Callable[..., Here]) -> None:
    done = run_here(uri)
    assert (done.code, done.text.count("\n")) == (64, 1)
    assert done.text.startswith("error: ") and text in done.text


def test_a_process_prints_a_mistake_on_stderr_and_nothing_else() -> None:
    done = stage_process("/tmp/task.json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (64, "", 1)


def test_a_run_may_be_called_runs(file_store: Store, run_here: Callable[..., Here]) -> None:
    task = lines_task(file_store, 4).model_copy(update={"run": "runs"})
    assert run_here(write_task(file_store, task)).code == 0


@pytest.mark.parametrize("arguments", [[], ["--index", "x", "uri"], ["one", "two"]])
def test_wrong_arguments_are_64_and_one_line(arguments: list[str]) -> None:
    done = run_cli(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (64, 1)


@pytest.mark.parametrize("index", ["3", "-1", "²", "one", ""])
def test_an_index_that_is_not_there_is_64(
    index: str, file_store: Store, run_here: Callable[..., Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = write_task(file_store, lines_task(file_store, 8, shards=3))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
    done = run_here(uri)
    assert (done.code, done.text.count("\n")) == (64, 1)
    assert run_here(uri, -1).code == 64


def test_the_completion_index_is_mapped_to_the_shard(file_store: Store, tmp_path: Path) -> None:
    task = lines_task(file_store, 40, shards=10, diary=str(tmp_path / "diary"))
    task = task.model_copy(update={"shards": Shards(count=10, indices=(3, 7, 8))})
    uri = write_task(file_store, task)
    assert stage_process(uri, 1).returncode == 0
    assert (tmp_path / "diary").read_text().split() == ["7:0"]
    assert outcome(file_store, task, 7).shard == 7
    assert run_cli(uri, "--index", "2").returncode == 0
    assert (tmp_path / "diary").read_text().split() == ["7:0", "8:0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_75_and_keeps_the_chunks(
    number: signal.Signals, either_store: Store, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    task = lines_task(either_store, 400, chunk_rows=1, pause_s=0.1, diary=str(diary))
    process = start_stage(write_task(either_store, task))
    while not diary.exists() or len(diary.read_text().split()) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    begun = len(diary.read_text().split())
    kept = [each for each in either_store.list(f"{task.output}/shard-00000/chunk-")]
    assert len(kept) == begun  # the chunk that it was in was finished and committed
    assert outcome(either_store, task).code == 75


def test_a_deadline_ends_with_75_and_keeps_the_chunks(file_store: Store, run_here: Callable[..., Here]) -> None:
    task = lines_task(file_store, 400, chunk_rows=1, pause_s=0.1)
    task = task.model_copy(update={"deadline": now() + timedelta(seconds=2)})
    assert run_here(write_task(file_store, task)).code == 75
    assert 0 < len(list(file_store.list(f"{task.output}/shard-00000/chunk-"))) < 400


def test_a_deadline_that_has_passed_ends_at_once(file_store: Store, run_here: Callable[..., Here]) -> None:
    task = make_task(WHOLE, {"wait_s": 60}, deadline=now() - timedelta(seconds=1))
    assert run_here(write_task(file_store, task)).code == 75
    assert not file_store.get_or_none(f"{task.output}/manifest.json")


def test_a_published_shard_answers_0_again(file_store: Store, run_here: Callable[..., Here]) -> None:
    task = lines_task(file_store, 8)
    run_shards(file_store, task, [0])
    assert run_here(write_task(file_store, task)).code == 0


def test_a_broken_input_is_65(file_store: Store, run_here: Callable[..., Here]) -> None:
    rows = numbers(file_store, 8)
    task = make_task("tests.toy.lines", {}, {"rows": rows})
    file_store.put(f"{rows.key}/shard-00000/manifest.json", b"{}")
    done = run_here(write_task(file_store, task))
    assert done.code == 65
    assert "Traceback" not in done.text


def test_a_file_in_the_place_of_a_folder_is_64(file_store: Store, run_here: Callable[..., Here]) -> None:
    assert isinstance(file_store, FileStore)
    task = lines_task(file_store, 8)
    uri = write_task(file_store, task)
    (file_store.root / task.output.split("/")[0]).joinpath("tests.toy.lines").write_text("in the way")
    assert run_here(uri).code == 64


def test_nothing_of_a_stage_stays_in_the_temporary_folder(
    file_store: Store, tmp_path: Path, run_here: Callable[..., Here], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    tasks = [lines_task(file_store, 8).model_copy(update={"settings": each}) for each in ({"fault": "bug"}, {"x": 1})]
    assert [run_here(write_task(file_store, task)).code for task in [*tasks, lines_task(file_store, 8)]] == [70, 64, 0]
    assert not list(scratch.iterdir())
