"""reseed: mean scores of instructions → seeds, as `prepare` publishes them.

With the loss signal that is LLM2LLM's step (arXiv 2403.15042: the teacher is shown what the student gets wrong), with
influence it is Montessori-Instruct's bootstrap ablation (arXiv 2410.14208).
"""

from __future__ import annotations

import math

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import gate
from stages.contract.tables import make_table
from stages.reseed.settings import ReseedSettings

SEEDS = pa.schema([("seed_id", pa.string()), ("instruction", pa.string()), ("response", pa.string())])


def run(context: StageContext) -> None:
    settings: ReseedSettings = context.settings
    rows = context.table("scores", columns=("instruction_id", "instruction", "score")).to_pylist()
    context.progress.begin(len(rows), unit="instructions", phase="choosing")
    with context.meter.phase("compute"):
        scored = [row for row in rows if row["score"] is not None]
        # Ids order equal scores, so that the order of the rows decides nothing.
        scored.sort(key=lambda row: (-row["score"], row["instruction_id"]))
        chosen = scored[: math.ceil(settings.share * len(scored))]
    if len(chosen) < settings.least_seeds:
        raise gate(
            f"{len(chosen)} of {len(scored)} scored instructions become seeds, and {settings.least_seeds} are asked "
            "for",
            where="reseed.least_seeds",
            hint="generate more candidates (instructions.prompts), or raise reseed.share",
        )
    context.meter.count(rows_in=len(rows), rows_kept=len(chosen))
    context.progress.update(len(rows))
    seeds = [
        {"seed_id": row["instruction_id"], "instruction": row["instruction"], "response": None}
        for row in sorted(chosen, key=lambda row: row["instruction_id"])
    ]
    context.publish(
        tables={"seeds": make_table(seeds, SEEDS)},
        figures={"scored": len(scored), "seeds": len(seeds), "least_score": chosen[-1]["score"]},
    )
