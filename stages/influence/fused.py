"""First order's dot products on a CPU, in one pass over memory.

Written as torch's operations, a candidate's update and its product with the reference gradient are seven passes over
blocks in the cache, each an operation of its own, and take a fifth of a short candidate's time; here numba compiles
them to one loop, which is four times as fast. On a GPU, and for a reference gradient in bf16, adam.py and torch do it.

With m' = β1·m + a·g, r = √v, r' = √(v + b·g²) and θ̄ moving by d = β1·m/(r + eps), what a candidate moves beyond θ̄ is

    (a·g − d·(r' − r)) / (r' + eps),    r' − r = b·g² / (r' + r)

in which nothing cancels: written as the difference of two updates it loses what the momentum is larger than the move.

The whole's sum is fp64, its groups' (error bars) are fp32 within a block and fp64 over blocks. Blocks are dealt to
threads in whole spans: a sum does not depend on how many threads there are, nor on what stands beside a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.influence.adam import AdamStep

_BLOCK = 1024  # elements; a candidate's directions there, and the rows that they are multiplied by, fit the L1 cache
_SPAN = 64 * _BLOCK
_TINY = np.finfo(np.float32).tiny


def add_sums(
    sums: NDArray[np.float64],
    step: AdamStep,
    m: Tensor,
    v: Tensor,
    whole: Tensor,
    groups: Tensor | None,
    gradients: Sequence[Tensor | None],
) -> None:
    """Adds (θ̄ − θ')/rate · (whole, groups) of one parameter to `sums`.

    Shapes: sums [C, 1 + K]; m, v and whole of the parameter's size, groups [K, size]; at most C gradients, of which
    none is one of zero. Everything is fp32 and on the CPU.
    """
    size, some = whole.numel(), len(gradients)
    flat = [torch.zeros(size) if each is None else each.reshape(-1) for each in gradients]
    # A tuple's length is a part of its type, and every type is compiled.
    flat += [flat[0]] * (len(sums) - some)
    rows = np.empty((0, size), np.float32) if groups is None else groups.numpy()
    arrays = [each.view(-1).numpy() for each in (m, v, whole)]
    # The last: where neither v nor g is anything, nothing moves.
    constants = np.array([step.beta1, 1 - step.beta1, step.square_weight, step.root_eps, _TINY], np.float32)
    spans = -(-size // _SPAN)
    found = np.zeros((spans, len(sums), 1 + len(rows)))
    arguments = (*arrays, rows, tuple(each.numpy() for each in flat), some, constants, found)
    threads = min(torch.get_num_threads(), spans)
    if threads == 1:
        _kernel()(*arguments, 0, spans)
    else:
        edges = [spans * thread // threads for thread in range(threads + 1)]
        for each in [
            _pool(torch.get_num_threads()).submit(_kernel(), *arguments, start, stop) for start, stop in pairwise(edges)
        ]:
            each.result()
    sums += found.sum(0)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "first-order")


@cache
def _kernel() -> Callable[..., None]:
    """Compiled on first use, which takes seconds; numba keeps what it compiled where it finds a place for it."""
    import numba

    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
    try:
        compiled: Callable[..., None] = numba.njit(_add_spans, cache=True, **options)
    except RuntimeError:  # neither beside the code nor in the user's home
        compiled = numba.njit(_add_spans, **options)
    return compiled


def _add_spans(
    m: Any,
    v: Any,
    whole: Any,
    groups: Any,
    gradients: Any,
    some: int,
    constants: Any,
    found: Any,
    start: int,
    stop: int,
) -> None:
    """Writes the sums of spans `start` to `stop` into found[span, candidate, (whole, groups)]."""
    keep, fresh, square_weight, root_eps, tiny = constants  # of fp32, as all that is computed with them
    drift, roots, moved = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for span in range(start, stop):
        for first in range(span * _SPAN, min((span + 1) * _SPAN, len(m)), _BLOCK):
            last = min(first + _BLOCK, len(m))
            size = last - first
            m_here, v_here, whole_here = m[first:last], v[first:last], whole[first:last]
            for i in range(size):
                roots[i] = np.sqrt(v_here[i])
                drift[i] = m_here[i] * keep / (roots[i] + root_eps)
            for candidate in range(some):
                gradient = gradients[candidate][first:last]
                for i in range(size):
                    square = square_weight * (gradient[i] * gradient[i])
                    root = np.sqrt(v_here[i] + square)
                    grown = square / (root + roots[i] + tiny)  # root - roots[i], without what cancels
                    moved[i] = (fresh * gradient[i] - drift[i] * grown) / (root + root_eps)
                score = 0.0
                for i in range(size):
                    score += np.float64(moved[i] * whole_here[i])
                found[span, candidate, 0] += score
                for group in range(len(groups)):
                    group_here = groups[group, first:last]
                    total = np.float32(0)
                    for i in range(size):
                        total += moved[i] * group_here[i]
                    found[span, candidate, 1 + group] += total
