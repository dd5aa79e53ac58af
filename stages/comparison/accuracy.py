"""Accuracy on tasks' questions as measures of the table: one for each number of examples."""

from __future__ import annotations

from collections.abc import Iterable

from stages.accuracy.bootstrap import TaskBootstrap, right_answers
from stages.comparison.grid import Row
from stages.comparison.measures import Measure, Score
from stages.comparison.settings import ComparisonSettings

_PER_CENT = (0.0, 100.0)


def accuracies(rows: Iterable[Row], settings: ComparisonSettings) -> list[Measure]:
    """Share of right answers in per cent, from the rows of `accuracy`; an answer that cannot be read is not right."""
    by_shots: dict[int, list[Row]] = {}
    for row in rows:
        by_shots.setdefault(row["shots"], []).append(row)
    return [_measure(shots, listed, settings) for shots, listed in sorted(by_shots.items())]


def _measure(shots: int, rows: list[Row], settings: ComparisonSettings) -> Measure:
    right = right_answers(rows)
    tasks = sorted(right)
    draw = TaskBootstrap(right, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed)
    scores = {
        student: Score(
            100 * draw.value(student, tasks),
            100 * draw.resampled(student, tasks),
            draw.questions(tasks),
            draw.seeds(student),
            within=_PER_CENT,
        )
        for student in dict.fromkeys(row["student"] for row in rows)
    }
    note = "per cent, exact match, mean over tasks."
    return Measure(f"accuracy_{shots}", f"{shots}-shot accuracy", "higher", 1, scores, note)
