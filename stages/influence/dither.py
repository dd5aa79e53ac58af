"""Other last bits for the weights, to see what rounding does to a score.

Evaluating the same weights in other packs repeats most roundings exactly: a row of a matrix product comes out
the same wherever it stands. Measured against fp64, that alone shows an eighth of the error. A relative change of the
weights by half a unit in the last place stands for the rounding of θ' itself, but re-draws only some of the pass's:
two thirds of the error. So the weights on both sides of a difference are changed alike by a good deal more, which the
difference does not see and every rounding of the pass does.

In a lower forward dtype both sides of a difference are rounded stochastically with the same random numbers,
so that a weight whose step is far below the spacing mostly stays where it is, on both sides, as it does in
the score.

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

# Units in the last place. Measured: from 16 on σ does not grow any more.
_ALIKE = 64.0
_STARTS, _LONGEST = 1 << 20, 1 << 22


@dataclass(frozen=True)
class Dither:
    """The `draw`-th rounding of the weights before or after the step, or of those that a gradient is taken at."""

    draw: int
    side: Literal["before", "after", "gradient"]

    def apply(self, values: Tensor, dtype: torch.dtype, key: str) -> None:
        """Moves fp32 `values`, which are to be stored in `dtype`; `key` says which part of the model they are."""
        self._move(values, torch.float32, f"{self.draw}:{self.side}", key)
        if self.side != "gradient":
            self._move(values, torch.float32, f"{self.draw}:both", key, _ALIKE)
        if dtype != torch.float32:
            self._move(values, dtype, f"{self.draw}", key)

    @staticmethod
    def _move(values: Tensor, dtype: torch.dtype, rounding: str, key: str, size: float = 1.0) -> None:
        start = zlib.crc32(f"{rounding}:{key}".encode()) % _STARTS
        half = _table(rounding, values.device)[start : start + len(values)]
        values.addcmul_(values, half, value=size * torch.finfo(dtype).eps)


@lru_cache(maxsize=4)
def _table(rounding: str, device: torch.device) -> Tensor:
    """Uniform in ±0.5, long enough to read a block of the step (adam.py) from any start."""
    generator = torch.Generator(device).manual_seed(zlib.crc32(rounding.encode()))
    return torch.rand(_STARTS + _LONGEST, generator=generator, device=device).sub_(0.5)
