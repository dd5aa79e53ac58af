"""Publishes what `responses`, `tasks`, `rationales` or `irt` might have made."""

from __future__ import annotations

import pyarrow as pa

from stages.contract.context import StageContext
from tests.arte import inputs
from tests.signals.rows import candidates


def run(context: StageContext) -> None:
    what = context.settings.what
    if what == "tasks":
        context.publish(tables=inputs.task_tables())
    elif what == "candidates":
        context.publish(tables={"rows": pa.Table.from_pylist(candidates())})
    else:
        made = inputs.rationale_rows() if what == "rationales" else inputs.preference_rows()
        context.publish(tables={"rows": made})
