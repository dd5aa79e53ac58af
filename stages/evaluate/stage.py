"""evaluate: students and held-out reference rows → one row a student, training seed and reference row: Σ nll, tokens.

The rows are encoded and masked exactly as influence does it (`stages/influence/examples.py`), so the two
losses are the same quantity on two halves of the reference.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings
from stages.contract.tables import make_table
from stages.evaluate.bootstrap import Counts, Floats, PairedBootstrap
from stages.evaluate.compare import compare
from stages.evaluate.names import split_replica
from stages.evaluate.settings import EvaluateSettings

PREFIX = "student."
HELDOUT = "heldout"
ROWS = pa.schema(
    [
        ("student", pa.string()),
        ("seed", pa.int64()),
        ("ref_id", pa.string()),
        ("nll", pa.float64()),
        ("tokens", pa.int32()),
    ]
)


def run(context: StageContext) -> None:
    settings: EvaluateSettings = context.settings
    reference = [
        (row["ref_id"], row["instruction"], row["response"]) for row in context.table("reference", HELDOUT).to_pylist()
    ]
    inputs = context.names(PREFIX)
    if not inputs:
        raise bad_settings("there is no student to evaluate", where=context.task.key, hint="name inputs student.NAME")
    context.progress.begin(len(inputs) * len(reference), phase="measuring")
    losses: dict[str, dict[int | None, tuple[Floats, Counts]]] = {}
    for name in inputs:
        context.check_stop()
        student, seed = split_replica(name.removeprefix(PREFIX))
        losses.setdefault(student, {})[seed] = _losses(context, context.model(name), reference)
        context.progress.advance(len(reference))
        context.meter.count(rows_in=len(reference), rows_kept=len(reference))
    bootstrap = PairedBootstrap(
        len(reference), resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed
    )
    rows: list[dict[str, Any]] = [
        {"student": student, "seed": seed, "ref_id": ref_id, "nll": float(nll), "tokens": int(tokens)}
        for student, replicas in losses.items()
        for seed, each in replicas.items()
        for (ref_id, _, _), nll, tokens in zip(reference, *each, strict=True)
    ]
    with context.meter.phase("compute"):
        figures = compare(losses, bootstrap)
    context.publish(tables={"rows": make_table(rows, ROWS)}, figures={**figures, "confidence": settings.confidence})


def _losses(context: StageContext, folder: Path, reference: list[tuple[str, str, str]]) -> tuple[Floats, Counts]:
    """(Σ nll [R], tokens [R]) of one student; nothing of it stays in memory."""
    from stages.influence.student import open_student

    settings: EvaluateSettings = context.settings
    with context.meter.phase("load"):
        encoder, loss = open_student(
            folder,
            precision=settings.precision,
            max_tokens=settings.max_tokens,
            attention=settings.attention,
            pack_tokens=settings.pack_tokens,
        )
    with context.meter.phase("compute", devices=1):
        examples = encoder.encode_reference(reference)
        nll_R = loss.sums(loss.batches(examples), len(examples))
    tokens_R = np.array([example.tokens for example in examples], dtype=np.int64)
    context.meter.count(tokens=sum(len(example.ids) for example in examples))
    if not np.isfinite(nll_R).all():
        worst = reference[int(np.flatnonzero(~np.isfinite(nll_R))[0])][0]
        raise bad_data("the student's loss is not a number", where=f"{folder}, reference row {worst}")
    del loss
    gc.collect()
    return nll_R, tokens_R
