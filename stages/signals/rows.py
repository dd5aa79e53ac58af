"""The rows of a signal: one a candidate response, with a score of which more is better.

`aggregate`, `pairs` and the report read these columns and no others, so a signal may have more of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.contract.errors import bad_data

Row = dict[str, Any]

_NAMES = [(name, pa.string()) for name in ("response_id", "instruction_id", "prompt_id", "method")]
# `stderr` is the score's own (over reference rows, or over a judge's samples), `noise` how far the method may be from
# exact arithmetic on the same rows (rounding, and what an approximation misses); either is null where the signal has
# none. A row without score says why in `reason`.
COLUMNS = pa.schema(
    [
        *_NAMES,
        *((name, pa.float64()) for name in ("score", "stderr", "noise")),
        ("tie", pa.bool_()),
        ("tokens", pa.int32()),
        ("reason", pa.string()),
    ]
)


def with_columns(*more: tuple[str, pa.DataType]) -> pa.Schema:
    """The common columns and a signal's own."""
    return pa.schema([*COLUMNS, *(pa.field(name, kind) for name, kind in more)])


def candidates(context: StageContext, *, columns: Iterable[str] | None = None, numbered: bool = False) -> pa.Table:
    """The usable responses that are not for the warm-up, in order.

    `numbered`: with a column `place`, the row's number in the table.

    Raises:
        StageError: BAD_DATA where there is none.
    """
    wanted = None if columns is None else list(dict.fromkeys([*columns, "usable", "split"]))
    found = context.table("rows", columns=wanted)
    usable = pc.and_(found["usable"], pc.not_equal(found["split"], "warmup"))
    if columns is not None:
        found = found.select(list(columns))
    if numbered:
        found = found.append_column("place", pa.array(np.arange(found.num_rows)))
    found = found.filter(usable)
    if not found.num_rows:
        raise bad_data("there is no candidate to score", where=f"{context.task.node}: rows")
    return found


def scored(candidate: Mapping[str, Any], method: str, score: float | None, **more: Any) -> Row:
    """A row of the common columns for one candidate; what is not given is unknown."""
    names = {name: candidate[name] for name in ("response_id", "instruction_id", "prompt_id")}
    unknown = {"stderr": None, "noise": None, "tie": False, "tokens": 0, "reason": None}
    return {**names, "method": method, "score": score, **unknown, **more}
