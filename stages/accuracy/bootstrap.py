"""Accuracies over tasks with paired intervals.

A mean over tasks gives each task the same weight, as the paper's tables do. Questions are resampled within each task,
the same ones for every student, so that a difference between two students has an interval of its own.

Shapes: S students, N questions of a task, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A share or a difference of two, with its interval."""

    value: float
    low: float
    high: float


class TaskBootstrap:
    """Resampled accuracies [S, R] of every task.

    Args:
        right: by task, whether student s answered question n rightly: [S, N].
    """

    def __init__(self, right: Mapping[str, NDArray[np.bool_]], *, resamples: int, confidence: float, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._confidence = confidence
        self._values: dict[str, Floats] = {}
        self._resampled: dict[str, Floats] = {}
        for task in sorted(right):
            right_SN = right[task].astype(np.float64)
            count = right_SN.shape[1]
            # How often each question is drawn: [R, N].
            drawn_RN = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
            self._values[task] = right_SN.mean(axis=1)
            self._resampled[task] = right_SN @ drawn_RN.T / count

    def accuracy(self, student: int, tasks: Sequence[str]) -> Estimate:
        """Mean accuracy over tasks of one student."""
        return self._estimate(tasks, {student: 1.0})

    def difference(self, first: int, second: int, tasks: Sequence[str]) -> Estimate:
        """`first` minus `second`, paired by question."""
        return self._estimate(tasks, {first: 1.0, second: -1.0})

    def _estimate(self, tasks: Sequence[str], signs: Mapping[int, float]) -> Estimate:
        value = np.mean([sum(sign * self._values[task][student] for student, sign in signs.items()) for task in tasks])
        resampled_R = np.mean(
            [sum(sign * self._resampled[task][student] for student, sign in signs.items()) for task in tasks], axis=0
        )
        tail = (1 - self._confidence) / 2
        low, high = np.quantile(resampled_R, [tail, 1 - tail])
        return Estimate(float(value), float(low), float(high))
