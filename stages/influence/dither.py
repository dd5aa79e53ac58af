"""Other last bits for the weights, to see what rounding does to a score.

Evaluating the same weights in other packs repeats most roundings exactly: a row of a matrix product comes out
the same wherever it stands. Measured against fp64, that alone shows an eighth of the error. A relative change of the
weights by half a unit in the last place stands for the rounding of θ' itself, but re-draws only some of the pass's:
two thirds of the error. So the weights on both sides of a difference are changed alike by a good deal more, which the
difference does not see and every rounding of the pass does.

In a lower forward dtype, or where products are taken of less precise numbers (TF32), both sides of a difference are
rounded stochastically with the same random numbers, so that a weight whose step is far below the spacing mostly stays
where it is, on both sides, as it does in the score. The weights that a gradient is taken at move by that spacing too:
by the last bit of fp32 they would mostly be rounded to what they were.

The random numbers of one rounding come out of one table, which every part of the model begins to read at a place of
its own: drawing them anew for each weight takes longer than the step. Neighbours within a block differ by what the
generator says, and blocks that overlap in the table belong to other weights.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

_FP32 = torch.finfo(torch.float32).eps
# Units in the last place. Measured: from 16 on σ does not grow any more.
_ALIKE = 64 * _FP32
_STARTS, _LONGEST = 1 << 20, 1 << 22


@dataclass(frozen=True)
class Dither:
    """The `draw`-th rounding of the weights before or after the step, or of those that a gradient is taken at.

    `spacing` is that of the numbers which products are taken of, relative to their size (matmul.py).
    """

    draw: int
    side: Literal["before", "after", "gradient"]
    spacing: float = _FP32

    def apply(self, values: Tensor, dtype: torch.dtype, key: str) -> None:
        """Moves fp32 `values`, which are to be stored in `dtype`; `key` says which part of the model they are."""
        coarsest = max(self.spacing, torch.finfo(dtype).eps)
        if self.side == "gradient":
            self._move(values, coarsest, f"{self.draw}:gradient", key)
            return
        self._move(values, _FP32, f"{self.draw}:{self.side}", key)
        self._move(values, _ALIKE, f"{self.draw}:both", key)
        if coarsest > _FP32:
            self._move(values, coarsest, f"{self.draw}", key)

    def stored(self, values: Tensor, dtype: torch.dtype, key: str) -> None:
        """Moves fp32 `values` that only wait in `dtype`, so that storing them rounds them otherwise."""
        for number, part in enumerate(values.split(_LONGEST)):
            self._move(part, torch.finfo(dtype).eps, f"{self.draw}:stored", f"{key}:{number}")

    @staticmethod
    def _move(values: Tensor, spacing: float, rounding: str, key: str) -> None:
        start = zlib.crc32(f"{rounding}:{key}".encode()) % _STARTS
        half = _table(rounding, values.device)[start : start + len(values)]
        values.addcmul_(values, half, value=spacing)


@lru_cache(maxsize=4)
def _table(rounding: str, device: torch.device) -> Tensor:
    """Uniform in ±0.5, long enough to read a block of the step (adam.py) from any start."""
    generator = torch.Generator(device).manual_seed(zlib.crc32(rounding.encode()))
    return torch.rand(_STARTS + _LONGEST, generator=generator, device=device).sub_(0.5)
