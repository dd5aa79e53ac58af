"""A training that is stopped, killed and started again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode
from stages.contract.store import FileStore, Store
from stages.contract.task import Task, write_task
from tests.support import make_task, model_input, publish, start_stage
from tests.training.rows import COMMON, responses

START_S = 900


def sft_task(store: Store, tiny_model: Path) -> Task:
    given = publish(store, "responses", tables={"rows": responses()})
    settings = COMMON | {"epochs": 120, "checkpoint_steps": 20}
    return make_task("sft", settings, {"student": model_input(tiny_model), "rows": given})


def wait_for_checkpoint(store: Store, task: Task, after: int) -> int:
    """The step of the first complete checkpoint later than `after`."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        keys = [key for key, _ in store.list(f"{task.output}/checkpoints/") if key.endswith("complete.json")]
        steps = [int(key.split("/")[-2].removeprefix("step-")) for key in keys]
        if steps and max(steps) > after:
            return max(steps)
        time.sleep(0.01)
    raise AssertionError("no checkpoint came")


def test_a_training_that_is_interrupted_and_killed_ends_as_an_undisturbed_one(tmp_path: Path, tiny_model: Path) -> None:
    undisturbed, disturbed = FileStore(tmp_path / "undisturbed"), FileStore(tmp_path / "disturbed")
    whole = start_stage(write_task(undisturbed, reference := sft_task(undisturbed, tiny_model)))
    task = sft_task(disturbed, tiny_model)
    uri = write_task(disturbed, task)

    first = start_stage(uri)
    wait_for_checkpoint(disturbed, task, 0)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=START_S)
    assert first.returncode == ExitCode.INTERRUPTED
    reached = wait_for_checkpoint(disturbed, task, 0)

    second = start_stage(uri)
    wait_for_checkpoint(disturbed, task, reached)
    workers = psutil.Process(second.pid).children(recursive=True)
    second.kill()
    second.communicate(timeout=START_S)
    _, left = psutil.wait_procs(workers, timeout=10)
    assert workers and all(ended(each) for each in left)

    third = start_stage(uri)
    _, errors = third.communicate(timeout=START_S)
    assert third.returncode == ExitCode.DONE, errors
    assert "going on from a checkpoint" in errors
    assert whole.wait(START_S) == ExitCode.DONE
    ours, theirs = Artifact(disturbed, task.output), Artifact(undisturbed, reference.output)
    assert weights_digest(ours) == weights_digest(theirs)
    steps = [entry["step"] for entry in ours.manifest.figures["loss"]]
    assert steps == list(range(1, 301))
    assert ours.manifest.figures["loss"] == theirs.manifest.figures["loss"]
    assert not list(disturbed.list(f"{task.output}/checkpoints/"))
    assert ours.manifest.ledger.peak_memory_bytes > 0


def ended(process: psutil.Process) -> bool:
    """Also one that nobody has asked for its status yet: an orphan's parent is the machine's first process."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def weights_digest(artifact: Artifact) -> str:
    return next(file.sha256 for file in artifact.files() if file.name == "model.safetensors")
