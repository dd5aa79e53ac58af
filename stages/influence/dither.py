"""Other last bits for the weights: to see what rounding does to a score, and so that coarse rounding takes no side.

Evaluating the same weights in other packs repeats most roundings exactly: a row of a matrix product comes out
the same wherever it stands. Measured against fp64, that alone shows an eighth of the error. A relative change of the
weights by half a unit in the last place stands for the rounding of θ' itself, but re-draws only some of the pass's:
two thirds of the error. So the weights on both sides of a difference are changed alike by a good deal more, which the
difference does not see and every rounding of the pass does.

In a lower forward dtype, or where products are taken of less precise numbers (TF32), both sides of a difference are
rounded with the same random numbers, the score's own as well as the noise floor's. Rounding to the nearest loses steps:
a released model's weights are bf16 numbers, after a short warm-up they are still near them, and each is taken back to
where it was until its step is half a spacing long. Drawn at random, a step that is a hundredth of the spacing is a
whole one in a hundredth of the weights, and their sum errs by chance alone, which σ shows. What is drawn has the first
two moments of the error independent of the value: it is the sum of two uniform numbers (Lipshitz, Wannamaker and
Vanderkooy, Quantization and dither: a theoretical survey, J. Audio Eng. Soc. 40, 1992).

Rounding to the nearest does that to a warm-up's steps as well: a candidate's loss by SmolLM2-135M was 5.09 before a few
of them and 4.52 after, and 4.88 with the weights then rounded to TF32 (drawn: 4.52). A draw takes another copy of the
weights, which only the reference pass has. So gradients are not taken with such products at all (loss.py).

The random numbers of one rounding come out of one table, which every part of the model begins to read at a place of
its own: drawing them anew for each weight takes longer than the step. Neighbours within a block differ by what the
generator says, and blocks that overlap in the table belong to other weights.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

_FP32 = torch.finfo(torch.float32).eps
# Units in the last place. Measured: from 16 on σ does not grow any more.
_ALIKE = 64 * _FP32
_STARTS, _LONGEST = 1 << 20, 1 << 22
_MANTISSA, _EXPONENT = 23, 0x7F80_0000  # fp32's: how many bits, and which


@dataclass(frozen=True)
class Dither:
    """The `draw`-th rounding of the weights before or after the step, or of those that a gradient is taken at; or a
    score's, which is the same before and after.

    `spacing` is that of the numbers which the reference pass multiplies, relative to their size (matmul.py).
    """

    draw: int
    side: Literal["before", "after", "gradient", "score"]
    spacing: float = _FP32
    # Kept while this is: a CUDA graph reads them where they are.
    _tables: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def apply(self, values: Tensor, dtype: torch.dtype, key: str) -> None:
        """Moves fp32 `values`, which are to be stored in `dtype`; `key` says which part of the model they are."""
        coarsest = max(self.spacing, torch.finfo(dtype).eps)
        if self.side == "gradient":
            self._move(values, _FP32, f"{self.draw}:gradient", key)
            return
        if self.side != "score":
            self._move(values, _FP32, f"{self.draw}:{self.side}", key)
            self._move(values, _ALIKE, f"{self.draw}:both", key)
        if coarsest > _FP32:
            self._round(values, coarsest, f"{self.draw}:score" if self.side == "score" else f"{self.draw}", key)

    def stored(self, values: Tensor, dtype: torch.dtype, key: str) -> None:
        """Moves fp32 `values` that only wait in `dtype`, so that storing them rounds them otherwise."""
        for number, part in enumerate(values.split(_LONGEST)):
            self._move(part, torch.finfo(dtype).eps, f"{self.draw}:stored", f"{key}:{number}")

    def _move(self, values: Tensor, spacing: float, rounding: str, key: str) -> None:
        half = self._drawn(rounding, 0, values, key)
        values.addcmul_(values, half, value=spacing)

    def _round(self, values: Tensor, spacing: float, rounding: str, key: str) -> None:
        """To numbers so far apart that whatever rounds them again (a product, too) changes nothing.

        A uniform move of one such distance, then up as often as the value is near the upper number. The first makes the
        size of the error the same everywhere: without it numbers that are round already would not err, those that have
        taken a step would, and the loss's curvature would count that against the step.
        """
        bits = values.view(torch.int32)
        power = bits.bitwise_and(_EXPONENT).view(torch.float32)
        values.addcmul_(power, self._drawn(f"{rounding}:moved", 0, values, key), value=spacing)
        dropped = _MANTISSA + round(math.log2(spacing))
        bits.add_(self._drawn(rounding, dropped, values, key)).bitwise_and_(-1 << dropped)

    def _drawn(self, rounding: str, dropped: int, values: Tensor, key: str) -> Tensor:
        if rounding not in self._tables:
            self._tables[rounding] = _table(rounding, dropped, values.device)
        start = zlib.crc32(f"{rounding}:{key}".encode()) % _STARTS
        return self._tables[rounding][start : start + len(values)]


def _table(rounding: str, dropped: int, device: torch.device) -> Tensor:
    """Uniform in ±0.5, or of so many bits; long enough to read a block of the step (adam.py) from any start."""
    generator = torch.Generator(device).manual_seed(zlib.crc32(rounding.encode()))
    if dropped:
        size = (_STARTS + _LONGEST,)
        return torch.randint(1 << dropped, size, generator=generator, device=device, dtype=torch.int32)
    return torch.rand(_STARTS + _LONGEST, generator=generator, device=device).sub_(0.5)
