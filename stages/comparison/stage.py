"""comparison: losses, verdicts, grades, benchmarks → tables cells and differences.

Every measure is resampled by question and training seed with the same draws for any two students, so that they are
judged question by question. A measure that no question counts for has no column; the figures say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stages.comparison.accuracy import accuracies
from stages.comparison.grid import Row
from stages.comparison.measures import Measure, benchmarks, grades, losses, win_rates
from stages.comparison.settings import ComparisonSettings
from stages.comparison.table import CELLS, DIFFERENCES, Marker, cells, differences
from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings
from stages.contract.tables import make_table

Rows = list[dict[str, Any]]


def _losses(rows: Iterable[Row], settings: ComparisonSettings) -> list[Measure]:
    found = losses(rows, settings)
    return [found] if found else []


def _grades(rows: Iterable[Row], settings: ComparisonSettings) -> list[Measure]:
    found = grades(rows, settings)
    return [found] if found else []


_KINDS: Mapping[str, Callable[[Iterable[Row], ComparisonSettings], list[Measure]]] = {
    "losses": _losses,
    "winrate": win_rates,
    "mtbench": _grades,
    "harness": benchmarks,
    "accuracy": accuracies,
}


def run(context: StageContext) -> None:
    settings: ComparisonSettings = context.settings
    given = [name for name in _KINDS if context.has(name)]
    if not given:
        raise bad_settings("there is nothing to compare", where=context.task.key, hint=f"inputs are {sorted(_KINDS)}")
    context.progress.begin(len(given), unit="measures", phase="resampling")
    measures: list[Measure] = []
    read: dict[str, Any] = {}
    for name in given:
        context.check_stop()
        rows: Rows = [row for row in context.table(name).to_pylist() if row["student"] not in settings.left_out]
        with context.meter.phase("compute"):
            found = _KINDS[name](rows, settings)
        measures += found
        read[name] = {"rows": len(rows), "reasons": dict(_reasons(rows)), "columns": len(found)}
        context.meter.count(rows_in=len(rows), rows_kept=len(rows))
        context.progress.advance()
    if not measures:
        reasons = {name: each["reasons"] for name, each in read.items()}
        raise bad_data(
            f"no question counts for any student in {' or '.join(given)}",
            where=context.task.key,
            hint=f"see the reasons in those nodes' rows: {reasons}",
        )
    marker = Marker(settings)
    made = [row for measure in measures for row in cells(measure, settings.baseline, marker)]
    told = [row for measure in measures for row in differences(measure, marker)]
    context.publish(
        tables={"cells": make_table(made, CELLS), "differences": make_table(told, DIFFERENCES)},
        figures={"baseline": settings.baseline, "confidence": settings.confidence, "read": read},
    )


def _reasons(rows: Rows) -> Counter[str]:
    """How many rows have no value, by why."""
    return Counter(row["reason"] for row in rows if row.get("reason"))
