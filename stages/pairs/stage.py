"""pairs: mean scores of instructions → preference pairs for DPO."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import bad_settings, gate
from stages.contract.tables import make_table
from stages.pairs.build import Pairs, ScoredInstruction, build_pairs
from stages.pairs.settings import PairsSettings

ROWS = pa.schema(
    [
        (name, pa.string())
        for name in ("pair_id", "prompt_id", "prompt", "chosen", "rejected", "chosen_id", "rejected_id")
    ]
    + [(name, pa.float64()) for name in ("chosen_score", "rejected_score", "gap", "gap_stderr")]
    + [("split", pa.string())]
)
_COLUMNS = ("instruction_id", "prompt_id", "prompt", "output", "n", "score", "stderr", "noise")


def run(context: StageContext) -> None:
    settings: PairsSettings = context.settings
    _check_reliability(context, settings)
    table = context.table("scores", columns=_COLUMNS)
    context.progress.begin(table.num_rows, unit="instructions", phase="pairing")
    with context.meter.phase("compute"):
        instructions = [ScoredInstruction(**row) for row in table.to_pylist() if row["score"] is not None]
        try:
            pairs = build_pairs(
                instructions,
                policy=settings.policy,
                least_gap_se=settings.least_gap_se,
                most_per_prompt=settings.most_per_prompt,
                heldout_share=settings.heldout_share,
                seed=settings.seed,
            )
        except ValueError as error:
            raise bad_settings(str(error), where="pairs") from None
    splits = Counter(row.split for row in pairs.rows)
    if splits["train"] < settings.least_pairs:
        raise gate(
            f"{splits['train']} training pairs came out of {pairs.prompts} prompts, and {settings.least_pairs} are "
            f"asked for ({_reasons(pairs)})",
            where="pairs.least_pairs",
            hint="generate more candidates, or choose policy best_worst where nearly everything helps",
        )
    context.meter.count(rows_in=table.num_rows, rows_kept=len(pairs.rows))
    context.progress.update(table.num_rows)
    context.publish(
        tables={"rows": make_table([asdict(row) for row in pairs.rows], ROWS)},
        figures={
            "prompts": pairs.prompts,
            "pairs": len(pairs.rows),
            "splits": dict(splits),
            "without": {str(reason): count for reason, count in pairs.without.items()},
            "ties": pairs.ties,
            "over_cap": pairs.over_cap,
        },
    )


def _check_reliability(context: StageContext, settings: PairsSettings) -> None:
    if not settings.least_reliability:
        return
    found = context.artifact("scores").manifest.figures["within_prompt_reliability"]["mean"]
    if found is None or found < settings.least_reliability:
        shown = "unknown (one response an instruction)" if found is None else f"{found:.2f}"
        raise gate(
            f"the reliability of an instruction's mean score is {shown}, and {settings.least_reliability} is asked for",
            where="pairs.least_reliability",
            hint="score more responses an instruction (responses.samples)",
        )


def _reasons(pairs: Pairs) -> str:
    return (
        ", ".join(f"{count} prompts {str(reason).replace('_', ' ')}" for reason, count in pairs.without.items())
        or "none"
    )
