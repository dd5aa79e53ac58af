"""prepare: sources → tables seeds, probe, heldout, dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.prepare.collect import Collected, Row, collect, settle_overlap
from stages.prepare.read import raw_rows
from stages.prepare.settings import PrepareSettings
from stages.prepare.split import split_reference

SEEDS = pa.schema([("seed_id", pa.string()), ("instruction", pa.string()), ("response", pa.string())])
REFERENCE = pa.schema([("ref_id", pa.string()), ("instruction", pa.string()), ("response", pa.string())])
DROPPED = pa.schema(
    [
        ("source", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("instruction", pa.string()),
    ]
)


def run(context: StageContext) -> None:
    settings: PrepareSettings = context.settings
    context.progress.begin(2, unit="sources", phase="reading")
    with context.meter.phase("compute"):
        seeds = _collected(context, "seeds", response_needed=False)
        reference = _collected(context, "reference", response_needed=True)
        kept_both = settle_overlap(seeds, reference, settings.overlap, settings.reference.shown)
        probe, heldout = split_reference(reference.rows, settings.probe_share, settings.reference.shown)
    kept = len(seeds.rows) + len(reference.rows)
    sides = {"probe": probe, "heldout": heldout}
    overlap = {name: sum(row.key in kept_both for row in rows) for name, rows in sides.items()}
    context.meter.count(rows_in=seeds.read + reference.read, rows_kept=kept)
    dropped = seeds.dropped + reference.dropped
    context.publish(
        tables={
            "seeds": _table(seeds.rows, "seed_id", SEEDS),
            "probe": _table(probe, "ref_id", REFERENCE),
            "heldout": _table(heldout, "ref_id", REFERENCE),
            "dropped": make_table(dropped, DROPPED),
        },
        figures={
            "read": {"seeds": seeds.read, "reference": reference.read},
            "kept": {"seeds": len(seeds.rows), "probe": len(probe), "heldout": len(heldout)},
            "dropped": {each.name: dict(Counter(row["reason"] for row in each.dropped)) for each in (seeds, reference)},
            **({"seeds_in_reference": overlap} if settings.overlap == "keep" else {}),
        },
    )


def _collected(context: StageContext, name: str, *, response_needed: bool) -> Collected:
    settings: PrepareSettings = context.settings
    source = getattr(settings, name)
    rows = raw_rows(source, context.store, context.scratch)
    found = collect(name, source, rows, response_needed=response_needed, on_bad_row=settings.on_bad_row)
    context.progress.advance()
    context.check_stop()
    return found


def _table(rows: list[Row], id_column: str, schema: pa.Schema) -> pa.Table:
    values: list[dict[str, Any]] = [
        {id_column: row.id, "instruction": row.instruction, "response": row.response} for row in rows
    ]
    return make_table(values, schema)
