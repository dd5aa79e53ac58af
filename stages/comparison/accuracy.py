"""Accuracy on tasks' questions as measures of the table: one for each number of examples."""

from __future__ import annotations

from collections.abc import Iterable

from stages.comparison.grid import Row, grid
from stages.comparison.measures import Measure, means
from stages.comparison.settings import ComparisonSettings


def accuracies(rows: Iterable[Row], settings: ComparisonSettings) -> list[Measure]:
    """Share of right answers in per cent, from the rows of `accuracy`; an answer that cannot be read is not right."""
    by_shots: dict[int, list[Row]] = {}
    for row in rows:
        by_shots.setdefault(row["shots"], []).append(row)
    found = []
    for shots, listed in sorted(by_shots.items()):
        measure = means(
            f"accuracy_{shots}",
            f"{shots}-shot accuracy",
            grid(listed, "item_id", "correct"),
            settings,
            decimals=1,
            factor=100,
            note="per cent, exact match, mean over questions.",
        )
        if measure is not None:
            found.append(measure)
    return found
