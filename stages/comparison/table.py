"""Measures as cells: values with intervals, the best of each column, and what cannot be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pyarrow as pa

from stages.comparison.measures import Measure, Score
from stages.comparison.settings import ComparisonSettings
from stages.evaluate.bootstrap import Interval, PairedBootstrap, bounded

CELLS = pa.schema(
    [
        ("measure", pa.string()),
        ("title", pa.string()),
        ("better", pa.string()),
        ("decimals", pa.int32()),
        ("note", pa.string()),
        ("student", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("items", pa.int64()),
        ("seeds", pa.int64()),
        ("best", pa.bool_()),
        ("like_best", pa.bool_()),
        ("like_baseline", pa.bool_()),
    ]
)
DIFFERENCES = pa.schema(
    [
        ("measure", pa.string()),
        ("first", pa.string()),
        ("second", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("items", pa.int64()),
    ]
)
Row = dict[str, Any]
_FEWEST = 6


class Marker:
    """Says of two scores whether their paired interval excludes 0."""

    def __init__(self, settings: ComparisonSettings) -> None:
        self._bootstrap = PairedBootstrap(
            1, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed
        )

    def interval(self, score: Score) -> Interval:
        found = self._bootstrap.interval(score.value, score.resampled)
        if score.within is None:
            return found
        return bounded(found, score.items, self._bootstrap.tail, score.within)

    def difference(self, first: Score, second: Score) -> Interval | None:
        """First minus second; None where they have no common unit."""
        if first.unit != second.unit:
            return None
        found = self._bootstrap.interval(first.value - second.value, first.resampled - second.resampled)
        if first.within is None:
            return found
        theirs = second.within or first.within
        widest = first.within[0] - theirs[1], first.within[1] - theirs[0]
        return bounded(found, first.items, self._bootstrap.tail, widest)

    def order(self, pair: tuple[Score, Score] | None) -> int | None:
        """1 where the first can be told to have the higher value, -1 the second, and 0 where the two cannot be told
        apart: by fewer than six common questions nobody can, as with a sign test. None without a common unit."""
        if pair is None:
            return 0
        found = self.difference(*pair)
        if found is None:
            return None
        return 0 if found.includes_zero or pair[0].items < _FEWEST else 1 if found.low > 0 else -1


def cells(measure: Measure, baseline: str, marker: Marker) -> list[Row]:
    """One row a student: its value, and its likeness with the column's best and with the baseline (None of itself, and
    where there is no baseline)."""
    sign = -1 if measure.better == "lower" else 1
    best = max(measure.scores, key=lambda name: sign * measure.scores[name].value)

    def like(other: str, student: str, *orders: int) -> bool | None:
        if student == other or other not in measure.scores:
            return None
        return marker.order(measure.pair(other, student)) in orders

    rows = []
    for student, score in measure.scores.items():
        interval = marker.interval(score)
        rows.append(
            {
                **{name: getattr(measure, name) for name in ("title", "better", "decimals", "note")},
                "measure": measure.name,
                "student": student,
                "value": score.value,
                "low": interval.low,
                "high": interval.high,
                "items": score.items,
                "seeds": score.seeds,
                "best": student == best,
                # On the questions of both it may even be better than the best, whose own questions were easier.
                "like_best": like(best, student, 0, -sign),
                "like_baseline": like(baseline, student, 0),
            }
        )
    return rows


def differences(measure: Measure, marker: Marker) -> list[Row]:
    """Every two students of a column on the questions that count for both, the first minus the second: not always the
    difference of their cells, which are of all questions that count for each."""
    rows = []
    for first, second in combinations(measure.scores, 2):
        pair = measure.pair(first, second)
        found = None if pair is None else marker.difference(*pair)
        if pair is not None and found is not None:
            rows.append(
                {
                    "measure": measure.name,
                    "first": first,
                    "second": second,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "items": pair[0].items,
                }
            )
    return rows


def ordered(names: Sequence[str], baseline: str) -> list[str]:
    """Students as a table lists them: the untrained one, the baseline, the others in the order given."""
    first = [name for name in ("base", baseline) if name in names]
    return list(dict.fromkeys([*first, *names]))
