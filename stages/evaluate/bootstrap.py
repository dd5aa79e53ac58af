"""Intervals of students' losses by resampling reference rows, the same rows for every student (paired).

The loss is the mean over tokens, Σ nll / Σ tokens, so a resample draws rows and divides sums: long rows weigh
more, as they do in the loss itself. (Efron and Tibshirani 1993, percentile intervals.)

Shapes: R reference rows, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_BLOCK = 512  # resamples at once: 512 x R counts


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its interval."""

    value: float
    low: float
    high: float

    @property
    def includes_zero(self) -> bool:
        return self.low <= 0 <= self.high


class PairedBootstrap:
    """The resampled token means of any number of students on the same R rows.

    Args:
        rows: R, the number of reference rows.
        resamples: S.
        confidence: such as 0.95.
    """

    def __init__(self, rows: int, *, resamples: int, confidence: float, seed: int) -> None:
        self.rows = rows
        self.resamples = resamples
        self.tail = 100 * (1 - confidence) / 2
        self.seed = seed

    def means(self, nll_R: Floats, tokens_R: Counts) -> Floats:
        """The token mean of every resample, [S]. Every call draws the same rows: that makes them paired."""
        return np.concatenate([(counts @ nll_R) / (counts @ tokens_R) for counts in self._draws()])

    def interval(self, value: float, resampled_S: Floats) -> Interval:
        low, high = np.percentile(resampled_S, [self.tail, 100 - self.tail])
        return Interval(value, float(low), float(high))

    def _draws(self) -> Iterator[Counts]:
        random = np.random.default_rng(self.seed)
        even = np.full(self.rows, 1 / self.rows)
        for start in range(0, self.resamples, _BLOCK):
            yield random.multinomial(self.rows, even, size=min(_BLOCK, self.resamples - start))


def token_mean(nll_R: Floats, tokens_R: Counts) -> float:
    """Mean loss per token: Σ nll / Σ tokens, in nats."""
    return float(nll_R.sum() / tokens_R.sum())
