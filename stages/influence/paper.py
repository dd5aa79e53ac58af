"""The released code's arithmetic, for comparison only: what it would have scored this candidate.

Differences to `Prober` that change the number (Montessori-Instruct's released code, arXiv 2410.14208):
everything in one dtype (bf16 for its 1.1B student: weights, moments and update), the gradient divided by the
number of GPUs, reference rows in batches of 8 padded to 1024 tokens (longer ones cut), the mean of the
batches' means, measured against θ.

Nothing is reused between candidates here, as there: each one copies the checkpoint anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stages.contract.errors import bad_data
from stages.influence.examples import Example
from stages.influence.state import AdamState

_IGNORED = -100


def paper_score(
    model: Any,
    state: AdamState,
    candidate: Example,
    reference: Sequence[Example],
    *,
    lr: float | None = None,
    world_size: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    batch_size: int = 8,
    pad_to: int = 1024,
    before: float | None = None,
) -> float:
    """Reference loss before minus after the step, both in `dtype`; a known loss `before` is not taken again.

    `model` is a plain Hugging Face causal LM of the checkpoint's architecture (not one that a `Prober` owns);
    its weights are overwritten.

    Raises:
        StageError: BAD_DATA for a candidate, or a batch of reference rows, of which the cut leaves no response token:
            its mean would be NaN, and the score with it.
    """
    _reload(model, state, dtype)
    if before is None:
        before = paper_reference_loss(model, reference, batch_size=batch_size, pad_to=pad_to)
    _step(model, state, candidate, lr, world_size, pad_to)
    return before - paper_reference_loss(model, reference, batch_size=batch_size, pad_to=pad_to)


@torch.no_grad()
def paper_reference_loss(model: Any, reference: Sequence[Example], *, batch_size: int = 8, pad_to: int = 1024) -> float:
    """Mean over batches of the batches' token means; a short last batch weighs as much as a full one."""
    means = []
    for start in range(0, len(reference), batch_size):
        rows = reference[start : start + batch_size]
        where = f"reference rows at indices {start} to {start + len(rows) - 1}"
        means.append(_mean_loss(model, rows, pad_to, where).item())
    return sum(means) / len(means)


def _reload(model: Any, state: AdamState, dtype: torch.dtype) -> None:
    model.eval()
    for name, parameter in model.named_parameters():
        parameter.data = state.weights[name].to(parameter.device, dtype, copy=True)
        parameter.grad = None


def _step(model: Any, state: AdamState, candidate: Example, lr: float | None, world_size: int, pad_to: int) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=state.lr if lr is None else lr,
        betas=state.betas,
        eps=state.eps,
        weight_decay=state.weight_decay,
    )
    (_mean_loss(model, [candidate], pad_to, "candidate") / world_size).backward()
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": state.exp_avg[name].to(parameter.device, parameter.dtype, copy=True),
            "exp_avg_sq": state.exp_avg_sq[name].to(parameter.device, parameter.dtype, copy=True),
        }
    optimizer.step()


def _mean_loss(model: Any, examples: Sequence[Example], pad_to: int, where: str) -> Tensor:
    if all(example.labels_from >= pad_to for example in examples):
        raise bad_data(
            f"no response token is within the first {pad_to} tokens", where=where, hint="leave it out, or pad to more"
        )
    device = next(model.parameters()).device
    ids = torch.zeros(len(examples), pad_to, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, _IGNORED)
    for row, example in enumerate(examples):
        kept = torch.tensor(example.ids[:pad_to])
        ids[row, : len(kept)] = kept
        mask[row, : len(kept)] = 1
        labels[row, example.labels_from : len(kept)] = kept[example.labels_from :]
    return model(
        input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels.to(device), use_cache=False
    ).loss
