"""What one rank does: encode, train, write. Rank 0's figures are the stage's."""

from __future__ import annotations

import os
import time
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from stages.contract.catalog import spec
from stages.distributed import use_gloo
from stages.influence.state import AdamState
from stages.precision import training_dtype
from stages.training.encode import Encoded, encode_pairs, encode_rows
from stages.training.export import changed_share, fp32_weights, moments, own_dtype, write_model, write_state
from stages.training.figures import heldout_figures, loss_curve, reward_curve
from stages.training.job import Advance, Job, Outcome, write_whole
from stages.training.schedules import rate


class _Clock:
    """Seconds by part: import, init, steps, save."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def rounded(self) -> dict[str, float]:
        return {part: round(value, 2) for part, value in self.seconds.items()}


def work(job: Job) -> Outcome:
    """One rank's part of the training.

    Raises:
        StageError: BAD_DATA where no row is left, GATE for a loss that is not finite; Interrupted once a checkpoint is
            written.
    """
    clock = _Clock()
    settings: Any = spec(job.stage).settings.model_validate(job.settings)
    settings = settings.model_copy(update={"dtype": training_dtype(settings.dtype, job.device)})
    writes = os.environ["RANK"] == "0"
    job.checkpoints.mkdir(exist_ok=True)

    from transformers import AutoTokenizer

    from stages.training import trainers
    from stages.training.watch import Watch

    use_gloo()
    clock.lap("import")
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    encoded = {name: _encoded(job, settings, tokenizer, name) for name in job.tables}
    encoded["train"].check(settings.max_tokens, _wanted(settings))
    if job.stage == "dpo":
        trainer: Any = trainers.pair_trainer(job, settings, tokenizer, encoded["train"].rows, encoded["heldout"].rows)
    else:
        trainer = trainers.row_trainer(job, settings, tokenizer, encoded["train"].rows)
    snapshots = _snapshots(job, settings, writes=writes)
    if snapshots is not None:
        trainer.add_callback(snapshots)
    watch = Watch(job, settings, trainer.args.device, time.monotonic)
    trainer.add_callback(watch)
    clock.lap("init")

    trainer.train(resume_from_checkpoint=str(job.resume) if job.resume else None)
    watch.check()
    if trainer.eval_dataset is not None:
        trainer.evaluate()
    clock.lap("steps")

    if writes:
        write_whole(job.progress, Advance(phase="saving"))
    weights = fp32_weights(trainer.model, writes=writes)
    dtype = _saved_dtype(job, settings)
    if job.stage == "warmup":
        _write_state(job, settings, trainer, weights, writes=writes)
    elif writes:
        write_model(trainer.model, weights, job.model, job.model_out, dtype)
    if not writes:
        return Outcome()
    changed = changed_share(weights, job.model, dtype)
    clock.lap("save")
    outcome = _outcome(job, settings, trainer, encoded)
    more: dict[str, Any] = {
        "dtype": settings.dtype,
        "saved_dtype": str(dtype).removeprefix("torch."),
        "weights_changed": changed,
        "seconds": clock.rounded(),
    }
    if snapshots is not None:
        more["checkpoints"] = snapshots.publish(job.model_out)
    return outcome.model_copy(update={"figures": outcome.figures | more})


def _snapshots(job: Job, settings: Any, *, writes: bool) -> Any:
    """The callback that keeps models on the way, where the stage has it and the settings ask for it."""
    wanted = getattr(settings, "checkpoints", 0)
    if not wanted:
        return None
    from stages.training.snapshots import Snapshots

    return Snapshots(job, wanted, _saved_dtype(job, settings), writes=writes)


def _saved_dtype(job: Job, settings: Any) -> torch.dtype:
    if job.stage == "warmup":
        return torch.float32
    named = settings.save_dtype
    return own_dtype(job.model) if named == "auto" else getattr(torch, named)


def _encoded(job: Job, settings: Any, tokenizer: Any, name: str) -> Encoded:
    rows = pq.read_table(job.tables[name]).to_pylist()
    if job.stage == "dpo":
        return encode_pairs(tokenizer, rows, settings.max_tokens, settings.closing)
    return encode_rows(tokenizer, rows, settings.max_tokens, most=_wanted(settings))


def _wanted(settings: Any) -> int | None:
    """The number of rows to train on, where the stage has that setting; all of them for None."""
    wanted: int | None = getattr(settings, "rows", None)
    return wanted


def _write_state(job: Job, settings: Any, trainer: Any, weights: dict[str, Tensor], *, writes: bool) -> None:
    first, second = (moments(trainer.model, key, writes=writes) for key in ("exp_avg", "exp_avg_sq"))
    if not writes:
        return
    steps = trainer.state.global_step
    state = AdamState(
        weights=weights,
        exp_avg=first,
        exp_avg_sq=second,
        step=steps,
        lr=settings.learning_rate * rate(settings.schedule, steps - 1, steps),
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    write_state(state, job.model, job.model_out)


def _outcome(job: Job, settings: Any, trainer: Any, encoded: dict[str, Encoded]) -> Outcome:
    train, order, log = encoded["train"], trainer.order, trainer.state.log_history
    figures: dict[str, Any] = {
        "steps": trainer.state.global_step,
        "batch": settings.batch,
        "epochs": settings.epochs,
        "rows": len(train.rows),
        "dropped": train.dropped,
        "tokens": sum(train.tokens[row] for row in order),
        "tokens_with_loss": sum(train.trained[row] for row in order),
        "loss": loss_curve(log),
        "ranks": job.ranks,
    }
    if job.stage == "dpo":
        figures["rewards"] = reward_curve(log)
        figures["heldout"] = heldout_figures(log, len(encoded["heldout"].rows))
    return Outcome(
        figures=figures,
        tokens=figures["tokens"],
        rows_in=len(train.rows) + sum(train.dropped.values()),
        rows_kept=len(train.rows),
    )
