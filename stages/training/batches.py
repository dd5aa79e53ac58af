"""Which rows each step sees: the same ones however many ranks and micro-batches compute it."""

from __future__ import annotations

import math

import numpy as np

from stages.contract.errors import bad_settings


def micro_batches(batch: int, most: int, ranks: int) -> tuple[int, int]:
    """(rows a rank computes at once, micro-batches a step): the largest divisor of a rank's rows up to `most`.

    Raises:
        StageError: BAD_SETTINGS where the batch cannot be dealt out to the ranks.
    """
    if batch % ranks:
        lower, upper = batch // ranks * ranks, (batch // ranks + 1) * ranks
        nearest = lower if lower and batch - lower <= upper - batch else upper
        raise bad_settings(
            f"a batch of {batch} rows cannot be dealt out to {ranks} ranks",
            where="batch",
            hint=f"the nearest that can is {nearest}",
        )
    rows = batch // ranks
    micro = max(size for size in range(1, min(most, rows) + 1) if rows % size == 0)
    return micro, rows // micro


def most_ranks(batch: int, gpus: int, pods: int = 1) -> int:
    """The most ranks a pod that a batch can be dealt out to, at most one a GPU; one where there is no GPU."""
    return max((ranks for ranks in range(1, max(1, gpus) + 1) if batch % (ranks * pods) == 0), default=1)


def row_order(rows: int, epochs: float, batch: int, seed: int) -> list[int]:
    """Row numbers in training order, each pass in another order; a whole number of batches, rounded up."""
    wanted = math.ceil(round(rows * epochs, 6) / batch) * batch
    order: list[int] = []
    while len(order) < wanted:
        order.extend(np.random.default_rng([seed, len(order) // rows]).permutation(rows).tolist())
    return order[:wanted]
