"""One AdamW step from fixed θ, m, v, written elsewhere: θ, m and v are only read.

Elementwise, so a shard of the parameters gives a shard of the result, and in blocks that stay in the
processor's cache: a step reads each of θ, m, v, g once and needs temporaries of one block, whatever the
model's size. All in fp32: at a learning rate of 5e-6 the update of a bf16 weight is below its spacing, and
v·0.999 in bf16 is v.

With t steps done, the probe is step t+1:

    m' = β1·m + (1−β1)·g        v' = β2·v + (1−β2)·g²
    θ' = θ·(1−lr·wd) − lr/(1−β1^(t+1)) · m' / (√(v'/(1−β2^(t+1))) + eps)

The constants of the root are taken out of it (into `rate` and `root_eps`), which leaves five elementwise operations:
on a GPU as on a CPU they cost as much as a short candidate's backward pass.

θ̄ is the same with g = 0: where the momentum and the decay of the warm-up carry the weights without any
example. (torch.optim.AdamW's order of operations; decoupled decay, arXiv 1711.05101.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.influence.dither import Dither

# Measured on a CPU with 1 MiB of L2 a core: below 2^17 the calls cost, above 2^20 the memory does. A GPU is
# filled by 2^22, and its temporaries are then 16 MiB each, and K times that for the groups of gradient.py.
_BLOCK = {"cpu": 1 << 18}
_BLOCK_ACCELERATOR = 1 << 22


@dataclass(frozen=True)
class AdamStep:
    """The constants of step t+1."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    step: int

    @property
    def rate(self) -> float:
        """What multiplies a direction: lr/(1−β1^step), and the constant part of the root below it."""
        return self.lr / (1 - self.beta1**self.step) / self._root_scale

    @property
    def root_eps(self) -> float:
        return self.eps / self._root_scale

    @property
    def square_weight(self) -> float:
        """g²'s weight beside v, once β2 is taken out of both."""
        return (1 - self.beta2) / self.beta2

    @property
    def _root_scale(self) -> float:
        return math.sqrt(self.beta2 / (1 - self.beta2**self.step))

    @property
    def keep(self) -> float:
        """What decay leaves of a weight."""
        return 1 - self.lr * self.weight_decay


class Adam:
    """The step's elementwise functions, with block-sized scratch allocated once for a device."""

    def __init__(self, step: AdamStep, device: torch.device) -> None:
        self.step = step
        self.block = _BLOCK.get(device.type, _BLOCK_ACCELERATOR)
        self._root, self._value = torch.empty(2, self.block, device=device)
        self._directions = torch.empty(1, self.block, device=device)

    def updated(
        self,
        out: Tensor,
        weight: Tensor,
        m: Tensor,
        v: Tensor,
        gradient: Tensor | None,
        *,
        dither: Dither | None = None,
        name: str = "",
    ) -> None:
        """Writes θ' (θ̄ for no gradient) into `out`, in out's dtype; `dither` rounds otherwise, by the name.

        `out` may be `weight` itself.
        """
        out, weight = out.view(-1), weight.view(-1)
        for part, (direction,) in self.directions(m, v, [gradient]):
            value = self._value[: len(direction)]
            torch.mul(weight[part], self.step.keep, out=value).sub_(direction, alpha=self.step.rate)
            if dither is not None:
                dither.apply(value, out.dtype, f"{name}:{part.start}")
            out[part].copy_(value)

    def rounded(self, out: Tensor, weight: Tensor, dither: Dither | None, name: str) -> None:
        """Writes θ itself into `out`, rounded as `updated` rounds θ'."""
        out, weight = out.view(-1), weight.view(-1)
        for part in self._parts(len(weight)):
            value = self._value[: part.stop - part.start].copy_(weight[part])
            if dither is not None:
                dither.apply(value, out.dtype, f"{name}:{part.start}")
            out[part].copy_(value)

    def directions(
        self, m: Tensor, v: Tensor, gradients: Sequence[Tensor | None], *, rows: int = 1
    ) -> Iterator[tuple[slice, Tensor]]:
        """(slice, (θ·keep − θ')/rate there [rows, size]) over the flattened parameter; scratch, until the next one.

        A row for each gradient, and rows of zeros where more are asked for.
        """
        m, v, step = m.view(-1), v.view(-1), self.step
        flat = [None if gradient is None else gradient.reshape(-1) for gradient in gradients]
        rows = max(rows, len(flat))
        if len(self._directions) < rows:
            self._directions = self._directions.new_empty(rows, self.block)
        self._directions[len(flat) : rows, : len(m)] = 0
        for part in self._parts(len(m)):
            size = part.stop - part.start
            root = self._root[:size]
            for gradient, out in zip(flat, self._directions[:, :size], strict=False):
                if gradient is None:
                    torch.mul(m[part], step.beta1, out=out)
                    torch.sqrt(v[part], out=root)
                else:
                    g = gradient[part]
                    torch.lerp(m[part], g, 1 - step.beta1, out=out)
                    torch.addcmul(v[part], g, g, value=step.square_weight, out=root).sqrt_()
                out.div_(root.add_(step.root_eps))
            yield part, self._directions[:rows, :size]

    def _parts(self, size: int) -> Iterator[slice]:
        for start in range(0, size, self.block):
            yield slice(start, min(size, start + self.block))
