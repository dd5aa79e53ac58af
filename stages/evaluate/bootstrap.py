"""Intervals of students' losses by resampling reference rows, the same rows for every student (paired), and the
training seeds of each student (not paired: what a seed does to one student says nothing of another).

The loss is the mean over tokens, Σ nll / Σ tokens, so a resample draws rows and divides sums: long rows weigh
more, as they do in the loss itself. (Efron and Tibshirani 1993, percentile intervals.)

Drawing N seeds out of N would say far too little of what a seed does where N is two or three: nothing is as far off as
the seed that was not tried. A resample moves a student's mean over its seeds by s/√N times a draw of Student's t with
N - 1 degrees of freedom instead, s being the standard deviation of its replicas. So the interval of one student's seeds
is the usual t interval, and that of two students is Behrens and Fisher's, which covers what it states or a little more.
Two seeds hardly bound anything (t = 12.7). One seed has no spread, and its interval is over rows alone.

Shapes: R reference rows, N training seeds, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_NO_SPREAD = 1e-3  # of what a value can be
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
        return np.concatenate([(counts @ nll_R) / (counts @ tokens_R) for counts in self.draws()])

    def seed_weights(self, student: str, seeds: int) -> Floats:
        """How much each of a student's N replicas counts in every resample, [S, N]; rows sum to 1.

        Weights may be below 0. What they weigh has mean x̄ and is spread around it as s/√N times Student's t, exactly:
        centred normal draws times any x are normal with variance (N - 1) s².
        """
        if seeds == 1:
            return np.ones((self.resamples, 1))
        random = np.random.default_rng([self.seed, crc32(student.encode())])
        normal_SN = random.standard_normal((self.resamples, seeds))
        centred_SN = normal_SN - normal_SN.mean(axis=1, keepdims=True)
        chi_S = np.sqrt(random.chisquare(seeds - 1, self.resamples))
        weights: Floats = 1 / seeds + centred_SN / (chi_S * np.sqrt(seeds))[:, None]
        return weights

    def replica_means(self, student: str, nll_NR: Floats, tokens_R: Counts) -> Floats:
        """As `means`, over a student's N replicas as well, [S]."""
        means_SN = np.stack([self.means(nll_R, tokens_R) for nll_R in nll_NR], axis=1)
        mixed: Floats = (means_SN * self.seed_weights(student, len(nll_NR))).sum(axis=1)
        return mixed

    def interval(self, value: float, resampled_S: Floats) -> Interval:
        low, high = np.percentile(resampled_S, [self.tail, 100 - self.tail])
        return Interval(value, float(low), float(high))

    def draws(self) -> Iterator[Counts]:
        """How often each row stands in each resample, in blocks of [some of S, R]."""
        random = np.random.default_rng(self.seed)
        even = np.full(self.rows, 1 / self.rows)
        for start in range(0, self.resamples, _BLOCK):
            yield random.multinomial(self.rows, even, size=min(_BLOCK, self.resamples - start))


def bounded(interval: Interval, rows: int, tail: float, within: tuple[float, float]) -> Interval:
    """An interval of a mean of values that cannot lie outside `within`: cut off there, and not too narrow.

    Rows that are all alike (every answer right) look certain to a bootstrap, be they one or a thousand. Then up to
    1 - tail^(1 / rows) of all rows could be unlike them and none have been met (Clopper and Pearson 1934), and the
    interval goes at least as far as those could take the mean. Of thousands of rows a few that differ look as certain,
    and there the bootstrap's own interval is the wider one.

    Args:
        rows: how many there were.
        tail: per cent of chance on either side, such as 2.5.
    """
    low, high = within
    value = interval.value
    cut = Interval(value, max(low, interval.low), min(high, interval.high))
    if interval.high - interval.low > _NO_SPREAD * (high - low):
        return cut
    unseen = 1 - (tail / 100) ** (1 / rows)
    lowest, highest = value - unseen * (value - low), value + unseen * (high - value)
    return Interval(value, min(lowest, cut.low), max(highest, cut.high))


def token_mean(nll_R: Floats, tokens_R: Counts) -> float:
    """Mean loss per token: Σ nll / Σ tokens, in nats."""
    return float(nll_R.sum() / tokens_R.sum())
