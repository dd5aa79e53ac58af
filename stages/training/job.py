"""What the stage's process and its training processes tell each other: small files in one folder of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from stages.contract.errors import ExitCode, StageError


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Job(_Frozen):
    """One training, as its processes are told of it.

    Attributes:
        stage: `warmup`, `dpo` or `sft`; `settings` are that stage's.
        model: Hugging Face folder to start from.
        tables: Parquet files by name: `train`, and `heldout` where there are pairs to measure on.
        folder: where everything below is written.
        resume: a checkpoint's folder to go on from.
        ranks: processes that train together, over all pods.
        pods: pods that they are spread over evenly; `place` is which of them this is.
        parent: process id of the stage; without it the training ends.
    """

    stage: str
    settings: dict[str, Any]
    model: Path
    tables: dict[str, Path]
    folder: Path
    resume: Path | None = None
    device: Literal["cpu", "cuda"]
    ranks: int
    pods: int = 1
    place: int = 0
    parent: int

    @property
    def ranks_here(self) -> int:
        return self.ranks // self.pods

    @property
    def stop(self) -> Path:
        """Exists once the training is to write a checkpoint and end."""
        return self.folder / "stop"

    @property
    def progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model_out(self) -> Path:
        return self.folder / "model"

    def outcome(self, rank: int) -> Path:
        return self.folder / f"outcome-{rank}.json"


class Advance(_Frozen):
    """How far the training is: in pairs while DPO's reference is computed, in steps while it trains."""

    phase: Literal["loading", "reference", "training", "saving"] = "loading"
    done: int = 0
    total: int = 0
    loss: float | None = None


class Outcome(_Frozen):
    """How a training process ended: figures, or an error to be raised by the stage."""

    code: ExitCode = ExitCode.DONE
    message: str = ""
    where: str | None = None
    hint: str | None = None
    figures: dict[str, Any] = {}
    tokens: int = 0
    rows_in: int = 0
    rows_kept: int = 0

    def error(self) -> StageError:
        return StageError(self.message, code=self.code, where=self.where, hint=self.hint)


def write_whole(path: Path, model: BaseModel) -> None:
    """Writes a file that a reader sees whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(model.model_dump_json())
    partial.replace(path)


def read_advance(job: Job) -> Advance:
    return Advance.model_validate_json(job.progress.read_text()) if job.progress.exists() else Advance()
