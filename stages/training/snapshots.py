"""Models on the way: the weights after some of the steps, published in folders of their own beside the last one's.

    model/…                   after the last step
    model/checkpoint-1/…      after 1/(n+1) of the steps, a Hugging Face folder as well

They show how a teacher changes while it is trained. A training that is interrupted carries those that it has written
in its own checkpoint (folder `snapshots`), so that it goes on with them wherever it is started again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from stages.contract.errors import bad_settings
from stages.training.export import fp32_weights, write_model
from stages.training.job import Job
from stages.training.watch import PREFIX

FOLDER = "snapshots"


def steps(total: int, wanted: int) -> dict[int, str]:
    """The folder's name for each step after which the weights are kept: `wanted` steps, evenly apart."""
    return {round(total * place / (wanted + 1)): f"{PREFIX}-{place}" for place in range(1, wanted + 1)}


class Snapshots(TrainerCallback):  # type: ignore[misc]
    """Writes the weights after the steps that `steps` names. To be added before Watch, which completes checkpoints."""

    def __init__(self, job: Job, wanted: int, dtype: torch.dtype, *, writes: bool) -> None:
        self.job = job
        self.wanted = wanted
        self.dtype = dtype
        self.writes = writes
        self.folder = job.folder / FOLDER
        self.total = 0
        if writes and job.resume is not None and (job.resume / FOLDER).is_dir():
            shutil.copytree(job.resume / FOLDER, self.folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.total = state.max_steps
        if self.total <= self.wanted:
            raise bad_settings(
                f"{self.wanted} checkpoints of a training of {self.total} steps",
                where=f"{self.job.stage}.checkpoints",
                hint="ask for fewer, or train on more",
            )

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        name = steps(self.total, self.wanted).get(state.global_step)
        if name is None:
            return
        weights = fp32_weights(model, writes=self.writes)  # collective: every rank takes part
        if self.writes:
            write_model(model, weights, self.job.model, self.folder / name, self.dtype)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.writes and self.folder.is_dir():
            kept = self.job.checkpoints / f"{PREFIX}-{state.global_step}" / FOLDER
            shutil.copytree(self.folder, kept, copy_function=os.link)

    def publish(self, folder: Path) -> list[dict[str, Any]]:
        """Moves the models into the published folder; says which is of which step."""
        named = steps(self.total, self.wanted)
        for name in named.values():
            (self.folder / name).rename(folder / name)
        return [{"folder": name, "step": step} for step, name in named.items()]
