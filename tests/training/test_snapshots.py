"""Models on the way of a training: after which steps, what they hold, and that an interruption loses none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from stages.training.job import Job
from stages.training.snapshots import Snapshots, steps
from tests.support import model_input, publish, run_stage
from tests.training.rows import COMMON
from tests.training.test_training import pairs


@pytest.mark.parametrize(
    ("total", "wanted", "expected"), [(12, 3, [3, 6, 9]), (4, 3, [1, 2, 3]), (10, 2, [3, 7]), (5, 0, [])]
)
def test_checkpoints_are_evenly_apart_and_never_the_last_step(total: int, wanted: int, expected: list[int]) -> None:
    assert list(steps(total, wanted)) == expected
    assert list(steps(total, wanted).values()) == [f"checkpoint-{n}" for n in range(1, wanted + 1)]


def test_dpo_publishes_the_teacher_on_its_way(file_store: Store, tiny_model: Path, tmp_path: Path) -> None:
    from tests.training.plain import load

    given = publish(file_store, "pairs", tables={"rows": pairs()})
    inputs = {"teacher": model_input(tiny_model), "pairs": given}
    settings = COMMON | {"epochs": 2}
    plain = run_stage(file_store, "dpo", settings, inputs)
    made = run_stage(file_store, "dpo", settings | {"checkpoints": 1}, inputs)
    assert made.manifest.figures["checkpoints"] == [{"folder": "checkpoint-1", "step": 2}]
    folder = made.folder(tmp_path)
    weight = "model.embed_tokens.weight"
    start, middle, end = (load(each).state_dict()[weight] for each in (tiny_model, folder / "checkpoint-1", folder))
    assert not torch.equal(start, middle) and not torch.equal(middle, end)
    assert torch.equal(end, load(plain.folder(tmp_path)).state_dict()[weight])  # looking changes nothing
    # Two folders of one artifact are two inputs.
    first, last = (
        ArtifactInput(key=made.key, digest=made.manifest.digest, folder=each) for each in ("checkpoint-1", "")
    )
    assert first.identity != last.identity == made.manifest.digest


def job(folder: Path, **fields: Any) -> Job:
    return Job(
        stage="dpo", settings={}, model=folder, tables={}, folder=folder, device="cpu", ranks=1, parent=1, **fields
    )  # fmt: skip


def test_an_interrupted_training_carries_its_models_in_its_checkpoint(tmp_path: Path) -> None:
    first = Snapshots(job(tmp_path / "a"), 2, torch.float32, writes=True)
    (first.folder / "checkpoint-1").mkdir(parents=True)
    (first.folder / "checkpoint-1" / "model.safetensors").write_bytes(b"weights")
    first.on_save(None, SimpleNamespace(global_step=5), None)
    kept = first.job.checkpoints / "checkpoint-5"
    assert (kept / "snapshots" / "checkpoint-1" / "model.safetensors").read_bytes() == b"weights"

    again = Snapshots(job(tmp_path / "b", resume=kept), 2, torch.float32, writes=True)
    assert (again.folder / "checkpoint-1" / "model.safetensors").read_bytes() == b"weights"


def test_more_checkpoints_than_steps_are_refused(tmp_path: Path) -> None:
    callback = Snapshots(job(tmp_path), 4, torch.float32, writes=True)
    with pytest.raises(StageError, match="4 checkpoints of a training of 4 steps") as caught:
        callback.on_train_begin(None, SimpleNamespace(max_steps=4), None)
    assert caught.value.code == ExitCode.BAD_SETTINGS
