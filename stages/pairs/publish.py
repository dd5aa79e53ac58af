"""How every stage that makes pairs ends: enough of them to train on, or a gate with the figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import gate
from stages.contract.tables import make_table


def publish_pairs(
    context: StageContext,
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    figures: Mapping[str, Any],
    *,
    read: int,
    out_of: str,
    reasons: str,
    hint: str,
) -> None:
    """Publishes pairs with their splits.

    Args:
        read: rows that pairs were looked for in.
        out_of, reasons, hint: for the message: what they came out of, why there are no more, what helps.

    Raises:
        StageError: GATE where fewer training pairs came out than the setting `least_pairs`.
    """
    splits = Counter(row["split"] for row in rows)
    if splits["train"] < context.settings.least_pairs:
        raise gate(
            f"{splits['train']} training pairs came out of {out_of}, and {context.settings.least_pairs} are asked for "
            f"({reasons})",
            where=f"{context.task.stage}.least_pairs",
            hint=hint,
        )
    context.meter.count(rows_in=read, rows_kept=len(rows))
    context.progress.update(read)
    context.publish(
        tables={"rows": make_table(rows, schema)}, figures={"pairs": len(rows), "splits": dict(splits), **figures}
    )
