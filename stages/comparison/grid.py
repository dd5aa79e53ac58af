"""Rows of judgements as arrays: the same questions for every student, one line a training seed.

Shapes: N training seeds, R questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.evaluate.bootstrap import Floats

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """Values [N, R] by student over the questions that every student and seed has a value for.

    Attributes:
        items: the R questions, in order.
        left_out: questions that some student or seed has no value for, such as an answer of the judge that could not be
            read: they count for nobody.
        silent: students without any value, who are in no column.
    """

    values: Mapping[str, Floats]
    items: tuple[str, ...]
    left_out: int
    silent: tuple[str, ...] = ()


def grid(rows: Iterable[Row], item: str, value: str) -> Grid:
    """A grid out of rows with `student`, `seed`, the column `item` and the number (or None) in column `value`."""
    found: dict[str, dict[Any, dict[str, float]]] = {}
    every: dict[str, None] = {}
    for row in rows:
        every[str(row[item])] = None
        of_seed = found.setdefault(row["student"], {}).setdefault(row["seed"], {})
        if row[value] is not None:
            of_seed[str(row[item])] = float(row[value])
    silent = tuple(student for student, seeds in found.items() if not any(seeds.values()))
    found = {student: seeds for student, seeds in found.items() if student not in silent}
    replicas = [each for seeds in found.values() for each in seeds.values()]
    items = tuple(name for name in every if all(name in each for each in replicas)) if replicas else ()
    values = {
        student: np.array([[each[name] for name in items] for each in seeds.values()], dtype=np.float64)
        for student, seeds in found.items()
    }
    return Grid(values, items, len(every) - len(items), silent)
