"""loss: candidates → the student's mean loss per response token on each; the highest is what it knows least.

The student is a Hugging Face folder, which a warm-up checkpoint is as well; rows are encoded and masked as elsewhere.
LLM2LLM (arXiv 2403.15042) picks what the student answers wrongly; for open-ended instructions, where right and wrong
are not defined, that is what it gives little probability to.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.loss.settings import LossSettings
from stages.signals.rows import Row, candidates, scored, with_columns

ROWS = with_columns(("nll", pa.float64()))


def run(context: StageContext) -> None:
    rows = candidates(context)
    student = _Student(context)
    for chunk in context.chunks(rows, unit="candidates"):
        found = student.losses(chunk.rows.to_pylist())
        context.meter.count(rows_in=len(found), rows_kept=sum(row["score"] is not None for row in found))
        chunk.commit({"rows": make_table(found, ROWS)})
    context.publish(figures={"method": "loss"})


class _Student:
    """The student, loaded when the first chunk needs it."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._settings: LossSettings = context.settings

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """(encoder, StudentLoss)."""
        from stages.influence.student import open_student

        settings, context = self._settings, self._context
        folder = context.model("student")
        with context.meter.phase("load"):
            return open_student(
                folder,
                precision=settings.precision,
                max_tokens=settings.max_tokens,
                attention=settings.attention,
                pack_tokens=settings.pack_tokens,
            )

    def losses(self, rows: list[Row]) -> list[Row]:
        encoder, loss = self._loaded
        examples = [encoder.encode(row["instruction"], row["response"]) for row in rows]
        usable = [example for example in examples if not hasattr(example, "reason")]
        with self._context.meter.phase("compute", devices=1):
            sums = iter(loss.sums(loss.batches(usable), len(usable)) if usable else ())
        self._context.meter.count(tokens=sum(example.tokens for example in usable))
        return [self._row(row, example, sums) for row, example in zip(rows, examples, strict=True)]

    @staticmethod
    def _row(row: Row, example: Any, sums: Any) -> Row:
        if hasattr(example, "reason"):
            return scored(row, "loss", None, nll=None, reason=f"{example.reason}: {example.detail}")
        nll, tokens = float(next(sums)), example.tokens
        if not math.isfinite(nll):
            return scored(row, "loss", None, nll=None, tokens=tokens, reason="not_finite: the loss is not a number")
        return scored(row, "loss", nll / tokens, nll=nll, tokens=tokens)
