"""One AdamW step from fixed θ, m, v, written elsewhere: θ, m and v are only read.

Elementwise, so a shard of the parameters gives a shard of the result, and in blocks that stay in the
processor's cache: a step reads each of θ, m, v, g once and needs temporaries of one block, whatever the
model's size. All in fp32: at a learning rate of 5e-6 the update of a bf16 weight is below its spacing, and
v·0.999 in bf16 is v.

With t steps done, the probe is step t+1:

    m' = β1·m + (1−β1)·g        v' = β2·v + (1−β2)·g²
    θ' = θ·(1−lr·wd) − lr/(1−β1^(t+1)) · m' / (√(v'/(1−β2^(t+1))) + eps)

θ̄ is the same with g = 0: where the momentum and the decay of the warm-up carry the weights without any
example. (torch.optim.AdamW's order of operations; decoupled decay, arXiv 1711.05101.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.influence.dither import Dither

# Measured on a CPU with 1 MiB of L2 a core: below 2^17 the calls cost, above 2^20 the memory does. A GPU is
# filled by 2^24, and its temporaries are then 64 MiB each.
_BLOCK = {"cpu": 1 << 18}
_BLOCK_ACCELERATOR = 1 << 24


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
        return self.lr / (1 - self.beta1**self.step)

    @property
    def second_scale(self) -> float:
        """1/(1−β2^step): v's bias correction as a factor."""
        return 1 / (1 - self.beta2**self.step)

    @property
    def keep(self) -> float:
        """What decay leaves of a weight."""
        return 1 - self.lr * self.weight_decay


class Adam:
    """The step's elementwise functions, with block-sized scratch allocated once for a device."""

    def __init__(self, step: AdamStep, device: torch.device) -> None:
        self.step = step
        self.block = _BLOCK.get(device.type, _BLOCK_ACCELERATOR)
        self._scratch = [torch.empty(self.block, dtype=torch.float32, device=device) for _ in range(4)]

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
        """Writes θ' (θ̄ for no gradient) into `out`, in out's dtype; `dither` rounds otherwise, by the name."""
        out, weight, m, v = (x.view(-1) for x in (out, weight, m, v))
        gradient = None if gradient is None else gradient.reshape(-1)
        for part in self._parts(len(weight)):
            move, value = self._views(2, part)
            self._direction(move, value, m[part], v[part], None if gradient is None else gradient[part])
            torch.mul(weight[part], self.step.keep, out=value).sub_(move, alpha=self.step.rate)
            if dither is not None:
                dither.apply(value, out.dtype, f"{name}:{part.start}")
            out[part].copy_(value)

    def displacement(self, m: Tensor, v: Tensor, gradient: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(slice, θ' − θ̄ there) over the flattened parameter; the tensor is scratch, valid until the next
        one.

        Decay is the same in both points and cancels, so θ is not needed. The difference is taken of the two
        directions, not of two weights: subtracting weights would leave only their last bits.
        """
        m, v, gradient = m.view(-1), v.view(-1), gradient.reshape(-1)
        for part in self._parts(len(m)):
            move, root, drift, drift_root = self._views(4, part)
            self._direction(drift, drift_root, m[part], v[part], None)
            self._direction(move, root, m[part], v[part], gradient[part])
            yield part, drift.sub_(move).mul_(self.step.rate)

    def _direction(self, out: Tensor, root: Tensor, m: Tensor, v: Tensor, gradient: Tensor | None) -> None:
        """out = m'/(√(v'·second_scale) + eps); `root` is scratch."""
        step = self.step
        torch.mul(m, step.beta1, out=out)
        torch.mul(v, step.beta2 * step.second_scale, out=root)
        if gradient is not None:
            out.add_(gradient, alpha=1 - step.beta1)
            root.addcmul_(gradient, gradient, value=(1 - step.beta2) * step.second_scale)
        out.div_(root.sqrt_().add_(step.eps))

    def _parts(self, size: int) -> Iterator[slice]:
        for start in range(0, size, self.block):
            yield slice(start, min(size, start + self.block))

    def _views(self, count: int, part: slice) -> list[Tensor]:
        return [scratch[: part.stop - part.start] for scratch in self._scratch[:count]]
