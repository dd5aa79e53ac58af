"""The same trainings written out in plain torch: no trl, no DeepSpeed, one process, fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.training.batches import row_order
from stages.training.encode import IGNORED, Encoded
from stages.training.schedules import rate
from stages.training.settings import TrainingSettings

Rows = list[dict[str, list[int]]]


def log_probability(model: Any, ids: Sequence[int], start: int) -> Tensor:
    """Σ log p of ids[start:], each given those before it."""
    x_1T = torch.tensor([ids])
    logp_TV = model(x_1T).logits[0, :-1].log_softmax(-1)
    return logp_TV.gather(1, x_1T[0, 1:, None])[start - 1 :].sum()


def rows_loss(model: Any, rows: Rows) -> Tensor:
    """Mean over the batch's tokens with loss."""
    starts = [next(at for at, label in enumerate(row["labels"]) if label != IGNORED) for row in rows]
    tokens = sum(len(row["input_ids"]) - start for row, start in zip(rows, starts, strict=True))
    pairs = zip(rows, starts, strict=True)
    return -torch.stack([log_probability(model, row["input_ids"], start) for row, start in pairs]).sum() / tokens


def dpo_loss(reference: Any, beta: float) -> Callable[[Any, Rows], Tensor]:
    """Mean over the batch's pairs of −log σ(β·(difference of log ratios))."""

    def ratio(model: Any, pair: dict[str, list[int]], side: str) -> Tensor:
        ids, start = pair["prompt_ids"] + pair[side], len(pair["prompt_ids"])
        with torch.no_grad():
            fixed = log_probability(reference, ids, start)
        return log_probability(model, ids, start) - fixed

    def loss(model: Any, pairs: Rows) -> Tensor:
        margins = [ratio(model, pair, "chosen_ids") - ratio(model, pair, "rejected_ids") for pair in pairs]
        return -torch.nn.functional.logsigmoid(beta * torch.stack(margins)).mean()

    return loss


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def trained(
    folder: Path, encoded: Encoded, settings: TrainingSettings, loss: Callable[[Any, Rows], Tensor]
) -> tuple[Any, torch.optim.AdamW]:
    """The model after the settings' steps, and its optimiser."""
    model = load(folder)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    order = row_order(len(encoded.rows), settings.epochs, settings.batch, settings.seed)
    steps = len(order) // settings.batch
    for step in range(steps):
        batch = order[step * settings.batch : (step + 1) * settings.batch]
        optimizer.zero_grad()
        loss(model, [encoded.rows[row] for row in batch]).backward()
        if settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * rate(settings.schedule, step, steps)
        optimizer.step()
    return model, optimizer
