"""The trainer's callback: progress, checkpoints, a wish to stop, a loss that is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from stages.contract.errors import Interrupted, gate
from stages.training.job import Advance, Job, write_whole
from stages.training.settings import TrainingSettings

PREFIX = "checkpoint"  # the trainer's own name for a checkpoint's folder


class Watch(TrainerCallback):  # type: ignore[misc]
    """Rank 0 decides and the others follow: clocks and files may differ between ranks, and saving is collective."""

    def __init__(self, job: Job, settings: TrainingSettings, device: torch.device, clock: Callable[[], float]) -> None:
        self.job = job
        self.settings = settings
        self.device = device
        self.clock = clock
        self.saved_at = clock()
        self.stopped = False
        self.first_step_at: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved_at = self.clock()
        self._report(state, None)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.first_step_at is None:
            self.first_step_at = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise gate(
                f"the loss is {loss} at step {state.global_step} of {state.max_steps}",
                where=self.job.stage,
                hint="lower learning_rate, or set dtype to float32",
            )
        self._report(state, loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            return  # the model itself is written next
        save, stop = self._agreed(state.global_step)
        control.should_save = control.should_save or save or stop
        control.should_training_stop = control.should_training_stop or stop
        self.stopped = self.stopped or stop

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.job.ranks > 1:
            dist.barrier()  # a rank's own files may still be on their way
        if state.is_local_process_zero:
            (self.job.checkpoints / f"{PREFIX}-{state.global_step}.complete").touch()
        self.saved_at = self.clock()

    def check(self) -> None:
        """Raises Interrupted if the training ended because it was asked to."""
        if self.stopped:
            raise Interrupted("interrupted; the training goes on from its checkpoint")

    def _agreed(self, step: int) -> tuple[bool, bool]:
        due = torch.tensor([self._save_due(step), self.job.stop.exists()], dtype=torch.int32, device=self.device)
        if self.job.ranks > 1:
            dist.broadcast(due, src=0)
        save, stop = due.tolist()
        return bool(save), bool(stop)

    def _save_due(self, step: int) -> bool:
        if self.settings.checkpoint_steps is not None:
            return step % self.settings.checkpoint_steps == 0
        return self.clock() - self.saved_at >= 60 * self.settings.checkpoint_minutes

    def _report(self, state: Any, loss: float | None) -> None:
        if state.is_world_process_zero:
            advance = Advance(phase="training", done=state.global_step, total=state.max_steps, loss=loss)
            write_whole(self.job.progress, advance)
