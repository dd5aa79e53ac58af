"""Asking a judge about rows, chunk by chunk; what it says that cannot be read is a row with a reason, and gated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.generation.gate import Gate, tally
from stages.generation.request import Completion
from stages.generation.teacher import Generator
from stages.judging.read import JUDGE
from stages.judging.settings import JudgingSettings

Row = dict[str, Any]
Ask = Callable[[Sequence[Row], Generator], list[Row]]


def judge_rows(context: StageContext, rows: pa.Table, ask: Ask, schema: pa.Schema, *, unit: str) -> None:
    """Publishes the judgements of all rows.

    Args:
        ask: the judgements of some rows, in `schema`, whose column `reason` says why one could not be read.
        unit: what the rows are called in the progress.
    """
    settings: JudgingSettings = context.settings
    judge = Generator(context, JUDGE, settings.engine, settings.system)
    gate = Gate(context, "parsed", "least_parsed", least=settings.least_parsed, after=settings.gate_after)
    for chunk in context.chunks(rows, unit=unit):
        made = ask(chunk.rows.to_pylist(), judge)
        figures = tally("parsed", (row["reason"] for row in made))
        chunk.commit({"rows": make_table(made, schema)}, figures=figures)
        gate.add(figures)
    context.publish(figures=gate.figures)


def why_unread(reason: str | None, completion: Completion) -> str | None:
    """The reason against a judgement; one that was cut off, or never begun, is called that."""
    if reason is None or completion.finish_reason == "stop":
        return reason
    return "truncated" if completion.finish_reason == "length" else completion.finish_reason
