"""How one probe is spread over processes: what a rank holds of the weights, and what ranks tell each other.

The prober's arithmetic is elementwise in the parameters and additive over reference rows, so it is written once, for
a part of the parameters and a part of the rows. `Alone` is the whole of both; `zero.py` has DeepSpeed's ZeRO-3.

A rank's part of a parameter is a contiguous piece of it, flattened, of the same size on every rank; the last one may
be padded with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stages.influence.packing import Batch
from stages.influence.scores import Floats


class Ranks(Protocol):
    """What the prober asks of its processes. Every method is called by all ranks, in the same order.

    Attributes:
        count: how many there are; `rank` is which one this is.
    """

    count: int
    rank: int

    def shapes(self, model: Any) -> dict[str, torch.Size]:
        """Of every whole parameter, by name."""

    def span(self, size: int) -> tuple[int, int, int]:
        """(first, last, padding) of this rank's part of `size` elements."""

    def install(self, model: Any, weights: dict[str, Tensor], device: torch.device) -> None:
        """The model has these weights from now on, and is on this device."""

    def using(self, model: Any, weights: dict[str, Tensor]) -> AbstractContextManager[None]:
        """The model computes with the weights of which these are this rank's parts; nothing is copied."""

    def gathered(self, *parameters: Tensor | None) -> AbstractContextManager[None]:
        """These parameters are whole inside the block; for reading one outside its module's forward."""

    def backward_done(self) -> None:
        """A backward pass is over."""

    def own(self, gradient: Tensor) -> Tensor:
        """This rank's part of a gradient that every rank has alike."""

    def spread(self, gradient: Tensor) -> Tensor:
        """[count, part]: this rank's part of each rank's own gradient."""

    def sum(self, values: Floats) -> Floats:
        """Sum over ranks, in fp64."""


class Alone:
    """One process that holds everything."""

    count, rank = 1, 0

    def shapes(self, model: Any) -> dict[str, torch.Size]:
        return {name: parameter.shape for name, parameter in model.named_parameters()}

    def span(self, size: int) -> tuple[int, int, int]:
        return 0, size, 0

    def install(self, model: Any, weights: dict[str, Tensor], device: torch.device) -> None:
        for name, parameter in model.named_parameters():
            parameter.data = weights[name]
        model.to(device)

    @contextmanager
    def using(self, model: Any, weights: dict[str, Tensor]) -> Iterator[None]:
        own = {name: parameter.data for name, parameter in model.named_parameters()}
        try:
            for name, parameter in model.named_parameters():
                parameter.data = weights[name].view(own[name].shape)
            yield
        finally:
            for name, parameter in model.named_parameters():
                parameter.data = own[name]

    def gathered(self, *parameters: Tensor | None) -> AbstractContextManager[None]:
        return nullcontext()

    def backward_done(self) -> None:
        pass

    def own(self, gradient: Tensor) -> Tensor:
        return gradient.reshape(-1)

    def spread(self, gradient: Tensor) -> Tensor:
        return gradient.reshape(1, -1)

    def sum(self, values: Floats) -> Floats:
        return values


def deal(ranks: Ranks, batches: Sequence[Batch]) -> tuple[list[Batch], int]:
    """(this rank's batches, how many of the last ones are there only to keep in step with the others).

    All ranks go through a pass as often, because each pass gathers weights from all of them.
    """
    mine = list(batches[ranks.rank :: ranks.count])
    idle = -(-len(batches) // ranks.count) - len(mine)
    return mine + [batches[0]] * idle, idle


def sum_over(ranks: Ranks, values: Sequence[Floats]) -> list[Floats]:
    """Sums several arrays over ranks in one exchange."""
    total = ranks.sum(np.concatenate([np.asarray(each, np.float64).reshape(-1) for each in values]))
    ends = np.cumsum([np.size(each) for each in values])[:-1]
    return list(np.split(total, ends))
