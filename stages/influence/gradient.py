"""The reference loss's gradient, taken once, and its dot product with a candidate's update.

Besides the whole gradient, the gradients of K random groups of reference rows are kept: their dot products
say how the score differs between parts of the reference set, which is its standard error (scores.py) with K−1
degrees of freedom (a relative error of about 1/√(2(K−1)): 27 % at K = 8). Memory: K times the parameters, in
fp32 on a CPU, in bf16 elsewhere. K = 0 keeps none: the error is NaN.

bf16 is precise enough for an error bar, and for `corrected`, where the groups are in the score: each element is off by
up to 2⁻⁸ of itself, at random, so that a sum of P of them is off by some 2⁻⁹/√P of the sum of their sizes. Measured on
a tiny student (18,600 parameters): 0.1 % of the scores' spread, a tenth of the error that `corrected` leaves, and not
twice what `gradient_dtype: bfloat16` costs first order. Its σ (noise.py) does not know of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.influence.adam import Adam
from stages.influence.dither import Dither
from stages.influence.examples import Example
from stages.influence.fused import add_sums
from stages.influence.loss import StudentLoss, not_finite
from stages.influence.ranks import deal
from stages.influence.scores import Floats


@dataclass(frozen=True)
class ReferenceGradient:
    """∇L_R at the point where it was taken, by parameter name and flattened: this rank's part.

    Attributes:
        whole: of all rows.
        groups: [K, size] of each group of rows.
        rows: the rows of each group; none where no groups are kept.
        shares: each group's share of the reference loss's weight [K].
    """

    whole: dict[str, Tensor]
    groups: dict[str, Tensor]
    rows: list[list[int]]
    shares: Floats


def reference_gradient(
    loss: StudentLoss,
    reference: Sequence[Example],
    weights_R: Floats,
    sizes: Mapping[str, int],
    *,
    groups: int,
    seed: int = 0,
    tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    dither: Dither | None = None,
) -> ReferenceGradient:
    """∇ Σ_r weights[r]·nll_r at the model's present weights, summed in fp32 and kept in `dtype`.

    `sizes` are of this rank's parts. Peak memory: K + 2 models, or one without groups. `tokens` packs otherwise and
    `dither` rounds to `dtype` otherwise (the noise floor's second opinion).
    """
    kept = groups if 2 <= groups <= len(reference) else 0
    dealt = group_rows(len(reference), max(kept, 1), seed)
    group_dtype = torch.float32 if loss.device.type == "cpu" else torch.bfloat16

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=loss.device)

    current = {name: zeros(size) for name, size in sizes.items()}
    whole = {name: zeros(size) for name, size in sizes.items()} if kept else current
    parts = {name: zeros(kept, size, dtype=group_dtype) for name, size in sizes.items()} if kept else {}

    def add(name: str, gradient: Tensor | None) -> None:
        if gradient is not None:
            current[name].add_(loss.ranks.spread(gradient).sum(0))

    for index, rows in enumerate(dealt):
        row_weights = torch.from_numpy(weights_R[rows])
        mine, idle = deal(loss.ranks, loss.batches([reference[row] for row in rows], tokens=tokens))
        for number, batch in enumerate(mine):
            weighs = number < len(mine) - idle
            nll_L = loss.gradient(batch, row_weights if weighs else torch.zeros_like(row_weights), add)
            bad_L = batch.row_L[~torch.isfinite(nll_L)]
            if len(bad_L):
                raise not_finite(rows[int(bad_L[0])])
        for name, gradient in current.items() if kept else ():
            whole[name].add_(gradient)
            parts[name][index].copy_(gradient)
            gradient.zero_()
    token_counts = np.array([example.tokens for example in reference])
    shares = np.array([np.sum((weights_R * token_counts)[rows]) for rows in dealt]) if kept else np.zeros(0)
    for name in sizes:
        if dither is not None and dtype != torch.float32:
            dither.stored(whole[name], dtype, f"{name}@{loss.ranks.rank}")
        whole[name] = whole[name].to(dtype)
    return ReferenceGradient(whole, parts, dealt if kept else [], shares)


def group_rows(rows: int, groups: int, seed: int = 0) -> list[list[int]]:
    """Rows dealt at random into groups of like size."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return [order[start::groups] for start in range(groups)]


class FirstOrderSums:
    """∇L_R · θ'/rate of up to so many candidates, each up to the same constant, gathered parameter by parameter while
    backward passes hand gradients over: the difference of two of them is −∇L_R · (θ' − θ̄)/rate, since decay is the same
    in both. (On a CPU the constant is θ̄'s, and that of a zero gradient is 0: fused.py.)

    A block of m, v and the reference gradients is read from memory once for all candidates. Sums of blocks are fp32,
    sums over blocks fp64, and a candidate's do not depend on what stands beside it. A rank gathers its own part of the
    sums, and the parts add up.
    """

    def __init__(
        self,
        reference: ReferenceGradient,
        adam: Adam,
        exp_avg: dict[str, Tensor],
        exp_avg_sq: dict[str, Tensor],
        candidates: int,
    ) -> None:
        self._reference, self._adam, self._m, self._v = reference, adam, exp_avg, exp_avg_sq
        some = next(iter(reference.whole.values()))
        kept = [*reference.whole.values(), *reference.groups.values()]
        self._fused = some.device.type == "cpu" and all(each.dtype == torch.float32 for each in kept)
        self._sums = torch.zeros(candidates, 1 + len(reference.shares), dtype=torch.float64, device=some.device)

    def consume(self, name: str, gradients: Sequence[Tensor | None]) -> None:
        """Adds one parameter's part of the first candidates; no gradient is a gradient of zero."""
        m, v = self._m[name], self._v[name]
        whole, groups = self._reference.whole[name], self._reference.groups.get(name)
        if self._fused:
            add_sums(self._sums.numpy(), self._adam.step, m, v, whole, groups, gradients)
            return
        rows = len(self._sums)  # always, because sums are rounded otherwise over fewer
        for part, directions in self._adam.directions(m, v, gradients, rows=rows):
            # torch.sum adds pairwise, and a product of matrices does not: what is added is large beside a difference of
            # two sums.
            if groups is not None:
                self._sums[:, 1:] += torch.mm(groups[:, part].float(), directions.T).T
            self._sums[:, 0] += directions.mul_(whole[part]).sum(1)

    def there(self) -> Tensor:
        """This rank's part of the whole dot products and of those of the groups, fp64 [candidates, 1 + K], yet on the
        device."""
        return self._sums
