"""harness: students → one row a student, task and document: the task's metric."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.evaluate.names import split_replica
from stages.harness.adapter import evaluate
from stages.harness.settings import HarnessSettings

PREFIX = "student."
ASKED = pa.schema([("input", pa.string()), ("task", pa.string())])
SCHEMA = pa.schema(
    [
        ("student", pa.string()),
        ("seed", pa.int64()),
        ("benchmark", pa.string()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("higher_is_better", pa.bool_()),
        ("document", pa.string()),
        ("value", pa.float64()),
    ]
)


def run(context: StageContext) -> None:
    settings: HarnessSettings = context.settings
    asked = [{"input": name, "task": task} for name in context.names(PREFIX) for task in settings.tasks]
    for chunk in context.chunks(make_table(asked, ASKED), unit="tasks"):
        rows = [row for each in chunk.rows.to_pylist() for row in _rows(context, each["input"], each["task"])]
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures={"documents": len(rows)})
        context.meter.count(rows_in=len(rows), rows_kept=len(rows))


def _rows(context: StageContext, name: str, task: str) -> list[dict[str, Any]]:
    student, seed = split_replica(name.removeprefix(PREFIX))
    model = context.model(name)
    with context.meter.phase("compute", devices=1):
        found = evaluate(model, task, context.settings)
    return [
        {
            "student": student,
            "seed": seed,
            "benchmark": task,
            "task": each.task,
            "metric": found.metric,
            "higher_is_better": found.higher_is_better,
            "document": each.document,
            "value": each.value,
        }
        for each in found.documents
    ]
