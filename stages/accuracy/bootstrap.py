"""Accuracies over tasks with paired intervals.

A mean over tasks gives each task the same weight, as the paper's tables do. Questions are resampled within each task,
the same ones for every student, so that a difference between two students has an interval of its own. A student that
was trained several times is the mean of its replicas, whose spread is in every interval (stages/evaluate/bootstrap.py).

Shapes: N training seeds of a student, Q questions of a task, S resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stages.evaluate.bootstrap import Floats, Interval, PairedBootstrap, bounded

SHARES, DIFFERENCES = (0.0, 1.0), (-1.0, 1.0)
Right = Mapping[str, Mapping[str, Floats]]  # by task and student: 1 for a right answer, else 0, [N, Q]


def right_answers(rows: Iterable[Mapping[str, Any]]) -> Right:
    """Out of rows with `task`, `student`, `seed`, `item_id` and `correct`; students answered the same questions."""
    found: dict[str, dict[str, dict[Any, dict[str, float]]]] = {}
    for row in rows:
        replicas = found.setdefault(row["task"], {}).setdefault(row["student"], {})
        replicas.setdefault(row["seed"], {})[row["item_id"]] = row["correct"]
    return {
        task: {
            student: np.array([[each[item] for item in sorted(each)] for each in replicas.values()], dtype=np.float64)
            for student, replicas in students.items()
        }
        for task, students in found.items()
    }


class TaskBootstrap:
    """Resampled accuracies of every student on every task."""

    def __init__(self, right: Right, *, resamples: int, confidence: float, seed: int) -> None:
        self._right = right
        self._draw = PairedBootstrap(1, resamples=resamples, confidence=confidence, seed=seed)
        generator = np.random.default_rng(seed)
        self._drawn_SQ: dict[str, Floats] = {}
        for task in sorted(right):
            count = next(iter(right[task].values())).shape[1]
            self._drawn_SQ[task] = generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count

    def questions(self, tasks: Sequence[str]) -> int:
        return sum(self._drawn_SQ[task].shape[1] for task in tasks)

    def seeds(self, student: str) -> int:
        return len(next(iter(self._right.values()))[student])

    def value(self, student: str, tasks: Sequence[str]) -> float:
        """Mean accuracy over tasks."""
        return float(np.mean([self._right[task][student].mean() for task in tasks]))

    def resampled(self, student: str, tasks: Sequence[str]) -> Floats:
        """The same of every resample, [S]."""
        by_seed_SN = np.mean([self._drawn_SQ[task] @ self._right[task][student].T for task in tasks], axis=0)
        mixed: Floats = (by_seed_SN * self._draw.seed_weights(student, self.seeds(student))).sum(axis=1)
        return mixed

    def accuracy(self, student: str, tasks: Sequence[str]) -> Interval:
        return self._interval(self.value(student, tasks), self.resampled(student, tasks), tasks, SHARES)

    def difference(self, first: str, second: str, tasks: Sequence[str]) -> Interval:
        """`first` minus `second`, paired by question."""
        value = self.value(first, tasks) - self.value(second, tasks)
        return self._interval(value, self.resampled(first, tasks) - self.resampled(second, tasks), tasks, DIFFERENCES)

    def _interval(
        self, value: float, resampled_S: Floats, tasks: Sequence[str], within: tuple[float, float]
    ) -> Interval:
        # Tasks weigh alike, so a task of few questions says as much as one of many.
        rows = len(tasks) * min(self._drawn_SQ[task].shape[1] for task in tasks)
        return bounded(self._draw.interval(value, resampled_S), rows, self._draw.tail, within)
