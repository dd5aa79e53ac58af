"""The reference loss's gradient, taken once, and its dot product with a candidate's update.

Besides the whole gradient, the gradients of K random groups of reference rows are kept: their dot products
say how the score differs between parts of the reference set, which is its standard error (scores.py) with K−1
degrees of freedom (a relative error of about 1/√(2(K−1)): 27 % at K = 8). Memory: K times the parameters, in
fp32 on a CPU, where bf16 products are slow, in bf16 elsewhere (three digits are enough for an error bar). K =
0 keeps none: the error is NaN.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.influence.adam import Adam
from stages.influence.examples import Example
from stages.influence.loss import Floats, StudentLoss, not_finite
from stages.influence.scores import standard_error


@dataclass(frozen=True)
class ReferenceGradient:
    """∇L_R at the point where it was taken, by parameter name and flattened; shares are those of the groups [K]."""

    whole: dict[str, Tensor]
    groups: dict[str, Tensor]
    shares: Floats


def reference_gradient(
    loss: StudentLoss,
    reference: Sequence[Example],
    weights_R: Floats,
    *,
    groups: int,
    seed: int = 0,
    tokens: int | None = None,
) -> ReferenceGradient:
    """∇ Σ_r weights[r]·nll_r at the model's present weights, fp32, and those of `groups` groups of rows.

    Peak memory beyond the result: one model in fp32. `tokens` packs otherwise (the noise floor's second
    opinion).
    """
    kept = groups if 2 <= groups <= len(reference) else 0
    order = list(range(len(reference)))
    random.Random(seed).shuffle(order)
    dealt = [order[start :: max(kept, 1)] for start in range(max(kept, 1))]
    sizes = {name: parameter.numel() for name, parameter in loss.model.named_parameters()}
    group_dtype = torch.float32 if loss.device.type == "cpu" else torch.bfloat16

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=loss.device)

    whole = {name: zeros(size) for name, size in sizes.items()}
    parts = {name: zeros(kept, size, dtype=group_dtype) for name, size in sizes.items()} if kept else {}
    current = {name: zeros(size) for name, size in sizes.items()}

    def add(name: str, gradient: Tensor | None) -> None:
        if gradient is not None:
            current[name].add_(gradient.reshape(-1))

    for index, rows in enumerate(dealt):
        row_weights = torch.from_numpy(weights_R[rows])
        for batch in loss.batches([reference[row] for row in rows], tokens=tokens):
            nll_L = loss.gradient(batch, row_weights, add)
            bad_L = batch.row_L[~torch.isfinite(nll_L)]
            if len(bad_L):
                raise not_finite(rows[int(bad_L[0])])
        for name, gradient in current.items():
            whole[name].add_(gradient)
            if kept:
                parts[name][index].copy_(gradient)
            gradient.zero_()
    token_counts = np.array([example.tokens for example in reference])
    shares = np.array([np.sum((weights_R * token_counts)[rows]) for rows in dealt]) if kept else np.zeros(0)
    return ReferenceGradient(whole, parts, shares)


class FirstOrderSum:
    """−∇L_R · (θ' − θ̄), gathered parameter by parameter while a candidate's backward pass hands its
    gradients over.

    Sums of blocks are fp32, sums over blocks fp64. A rank that holds a part of the parameters gathers its own
    part of the sums, and the parts add up.
    """

    def __init__(
        self,
        reference: ReferenceGradient,
        adam: Adam,
        exp_avg: dict[str, Tensor],
        exp_avg_sq: dict[str, Tensor],
    ) -> None:
        self._reference, self._adam, self._m, self._v = reference, adam, exp_avg, exp_avg_sq
        device = next(iter(reference.whole.values())).device
        self._whole = torch.zeros((), dtype=torch.float64, device=device)
        self._groups = torch.zeros(len(reference.shares), dtype=torch.float64, device=device)

    def consume(self, name: str, gradient: Tensor | None) -> None:
        """Adds one parameter's part; without a gradient θ' is θ̄ there."""
        if gradient is None:
            return
        whole, groups = self._reference.whole[name], self._reference.groups.get(name)
        for part, move in self._adam.displacement(self._m[name], self._v[name], gradient):
            self._whole -= torch.dot(whole[part], move)
            if groups is not None:
                self._groups -= torch.mv(groups[:, part], move.to(groups.dtype))

    def result(self) -> tuple[float, float]:
        """(score, standard error over the reference groups)."""
        return self._whole.item(), standard_error(self._groups.cpu().numpy(), self._reference.shares)
