"""CUDA graphs of the probe's two kinds of work: a candidate's step, and a pass over the reference set.

A step on a small student is some fourteen thousand calls of a few microseconds of work each, and a GPU waits for Python
most of the time. A graph asks for all of them in one call. What it needs is that the work is the same every time, at
the same addresses: a pass over the reference set is, and a step is once its candidate is padded on the right to one of
a few lengths, where no token before it looks and no label is.

Where work cannot be captured (a model that reads a value back from the GPU on its way), it goes on as before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch import Tensor

from stages.influence.packing import Batch, padded_to

ROUND = 128  # lengths in tokens and in labels are rounded up to multiples: at most 64 graphs for 1,024 tokens

Work = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class _Captured:
    """`arguments` are what the graph reads, `results` what it leaves; `work` is kept for what it refers to."""

    graph: Any
    arguments: tuple[Any, ...]
    results: tuple[Tensor, ...]
    work: Work


class Graphs:
    """What was captured, by its key; `clear` after anything that the work reads or writes has moved."""

    def __init__(self, device: torch.device, longest: int, *, wanted: bool = True) -> None:
        """`longest`: positions that the model knows."""
        self.on = wanted and device.type == "cuda"
        self._longest = longest
        self._captured: dict[Hashable, _Captured] = {}
        self._pool: Any = None

    def clear(self) -> None:
        self._captured.clear()
        self._pool = None

    def step(self, key: Hashable, batch: Batch, weights_R: Tensor, work: Work) -> tuple[Tensor, ...]:
        """`work(batch, weights_R)` of one packed example: nll [L'] first, its own labels before the padding's.

        The next call of any key may overwrite the results.
        """
        if not self.on:
            return work(batch, weights_R)
        tokens, labels = (-(-size // ROUND) * ROUND for size in (batch.ids_BT.shape[1], len(batch.labels_L)))
        tokens = max(batch.ids_BT.shape[1], min(tokens, self._longest))
        given = padded_to(batch, tokens, labels), torch.cat([weights_R, weights_R.new_zeros(1)])
        return self._run((key, tokens, labels), given, work) or work(batch, weights_R)

    def again(self, key: Hashable, work: Work) -> tuple[Tensor, ...]:
        """`work()`, which has no arguments of its own."""
        return (self._run(key, (), work) if self.on else None) or work()

    def _run(self, key: Hashable, given: tuple[Any, ...], work: Work) -> tuple[Tensor, ...] | None:
        """None where the work cannot be captured."""
        found = self._captured.get(key) or self._capture(given, work)
        if found is None:
            return None
        self._captured[key] = found
        for into, value in zip(found.arguments, given, strict=True):
            into.copy_(value)
        found.graph.replay()
        return found.results

    def _capture(self, given: tuple[Any, ...], work: Work) -> _Captured | None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work(*given)  # allocates and chooses what is allocated and chosen once
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                results = work(*given)
        except RuntimeError as error:
            torch.cuda.synchronize()
            structlog.get_logger().warning("no CUDA graph of this student", error=str(error)[:200])
            self.on = False
            self.clear()
            return None
        self._pool = graph.pool()
        return _Captured(graph, given, results, work)
