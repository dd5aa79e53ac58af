"""Rows of judgements as arrays: questions in one order for every student, one line a training seed.

Shapes: N training seeds, R questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.evaluate.bootstrap import Floats

Row = Mapping[str, Any]
Chosen = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Values [N, R] by student.

    Attributes:
        values: not a number where a training seed has none for a question, such as one whose verdict could not be read.
        items: the R questions, in order.
    """

    values: Mapping[str, Floats]
    items: tuple[str, ...]

    def known(self) -> dict[str, Chosen]:
        """By student the questions [R] that count for it: those that all its training seeds have a value for."""
        return {student: np.asarray(~np.isnan(each_NR).any(axis=0)) for student, each_NR in self.values.items()}


def grid(rows: Iterable[Row], item: str, value: str) -> Grid:
    """A grid out of rows with `student`, `seed`, the column `item` and the number (or None) in column `value`."""
    found: dict[str, dict[Any, dict[str, float]]] = {}
    every: dict[str, None] = {}
    for row in rows:
        every[str(row[item])] = None
        of_seed = found.setdefault(row["student"], {}).setdefault(row["seed"], {})
        if row[value] is not None:
            of_seed[str(row[item])] = float(row[value])
    values = {
        student: np.array([[each.get(name, np.nan) for name in every] for each in seeds.values()], dtype=np.float64)
        for student, seeds in found.items()
    }
    return Grid(values, tuple(every))
