"""Means of scores with intervals, resampled by prompt: candidates of one prompt are not independent.

Shapes: P prompts, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.evaluate.bootstrap import Counts, Floats, Interval, PairedBootstrap

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scores:
    """The scored rows of one influence artifact."""

    values: list[float]
    prompts: list[str]
    helpful: int
    harmful: int
    ties: int

    @staticmethod
    def of(rows: Iterable[Mapping[str, Any]]) -> Scores:
        """Out of influence rows; a tie is neither helpful nor harmful, and a row without score is left out."""
        scored = [row for row in rows if row["score"] is not None]
        ties = sum(bool(row["tie"]) for row in scored)
        helpful = sum(row["score"] > 0 and not row["tie"] for row in scored)
        return Scores(
            [float(row["score"]) for row in scored],
            [str(row["prompt_id"]) for row in scored],
            helpful,
            len(scored) - ties - helpful,
            ties,
        )

    def only(self, prompts: set[str]) -> Scores:
        """The rows of some prompts; counts of signs stay those of all."""
        kept = [(v, p) for v, p in zip(self.values, self.prompts, strict=True) if p in prompts]
        return Scores([v for v, _ in kept], [p for _, p in kept], self.helpful, self.harmful, self.ties)

    def by_prompt(self) -> tuple[Floats, Counts]:
        """(sum of scores [P], number of scores [P]), prompts in the order of their ids."""
        names, index = np.unique(np.array(self.prompts), return_inverse=True)
        sums = np.bincount(index, weights=np.array(self.values), minlength=len(names)).astype(np.float64)
        return sums, np.bincount(index, minlength=len(names)).astype(np.int64)


@dataclass(frozen=True)
class Difference:
    """Mean of the second minus mean of the first; `prompts` is the number of shared prompts if it is paired."""

    interval: Interval
    prompts: int | None


def mean(scores: Scores) -> Interval:
    """Mean score over rows with its interval."""
    sums, counts = scores.by_prompt()
    draws = bootstrap(len(sums), seed=0)
    return draws.interval(float(sums.sum() / counts.sum()), draws.means(sums, counts))


def difference(before: Scores, after: Scores) -> Difference:
    """How far the mean moved. Paired over the prompts that both have, where they are most of either's prompts."""
    shared = set(before.prompts) & set(after.prompts)
    fewer = min(len(set(before.prompts)), len(set(after.prompts)))
    paired = len(shared) >= max(2, fewer / 2)
    if paired:
        before, after = before.only(shared), after.only(shared)
    resampled, values = [], []
    for seed, scores in enumerate((before, after)):
        sums, counts = scores.by_prompt()
        # Equal seeds draw equal prompts: that is the pairing.
        resampled.append(bootstrap(len(sums), seed=0 if paired else seed).means(sums, counts))
        values.append(float(sums.sum() / counts.sum()))
    interval = bootstrap(1, seed=0).interval(values[1] - values[0], resampled[1] - resampled[0])
    return Difference(interval, len(shared) if paired else None)


def bootstrap(prompts: int, *, seed: int) -> PairedBootstrap:
    """Resamples of so many prompts; equal seeds draw equal ones."""
    return PairedBootstrap(prompts, resamples=RESAMPLES, confidence=CONFIDENCE, seed=seed)
