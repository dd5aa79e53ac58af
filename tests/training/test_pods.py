"""Trainings over two pods: two processes of the stage that meet at an address of this machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode
from stages.contract.store import FileStore, Store
from stages.contract.task import Task, write_task
from stages.distributed import free_port
from tests.support import make_task, model_input, publish, start_stage
from tests.training.rows import COMMON, responses
from tests.training.test_training import pairs

END_S = 900.0

Pod = subprocess.Popen[str]


@contextmanager
def two_pods(uri: str) -> Iterator[tuple[Pod, Pod]]:
    rendezvous = f"localhost:{free_port()}"
    environment = {"MONTESSORI_PODS": "2", "MONTESSORI_RENDEZVOUS": rendezvous, "OMP_NUM_THREADS": "1"}
    pods = start_stage(uri, 0, environment), start_stage(uri, 1, environment)
    try:
        yield pods
    finally:
        for pod in pods:
            pod.kill()
            pod.communicate()


def ends(pods: tuple[Pod, Pod], within: float = END_S) -> tuple[int, int]:
    end = time.monotonic() + within
    first, second = (pod.wait(max(0.0, end - time.monotonic())) for pod in pods)
    return first, second


def task_of(store: Store, stage: str, tiny_model: Path, settings: dict[str, Any]) -> Task:
    table = pairs() if stage == "dpo" else responses()
    given = publish(store, "rows", tables={"rows": table})
    inputs = {"teacher": model_input(tiny_model), "pairs": given}
    if stage != "dpo":
        inputs = {"student": model_input(tiny_model), "rows": given}
    return make_task(stage, COMMON | settings, inputs)


def one_machine(folder: Path, stage: str, tiny_model: Path, settings: dict[str, Any]) -> Artifact:
    store = FileStore(folder / "one-machine")
    task = task_of(store, stage, tiny_model, settings | {"ranks": 2})
    process = start_stage(write_task(store, task), env={"OMP_NUM_THREADS": "1"})
    _, errors = process.communicate(timeout=END_S)
    assert process.returncode == ExitCode.DONE, errors
    return Artifact(store, task.output)


def test_two_pods_of_one_rank_train_what_one_pod_of_two_ranks_does(
    file_store: Store, tiny_model: Path, tmp_path: Path
) -> None:
    settings = {"ranks": 1, "epochs": 2, "dtype": "bfloat16"}
    task = task_of(file_store, "dpo", tiny_model, settings)
    with two_pods(write_task(file_store, task)) as pods:
        assert ends(pods) == (ExitCode.DONE, ExitCode.DONE), [pod.communicate()[1] for pod in pods]
    ours, theirs = Artifact(file_store, task.output), one_machine(tmp_path, "dpo", tiny_model, settings)
    assert ours.manifest.digest == theirs.manifest.digest
    figures = [dict(each.manifest.figures) for each in (ours, theirs)]
    for each in figures:
        each.pop("seconds")
    assert figures[0] == figures[1]
