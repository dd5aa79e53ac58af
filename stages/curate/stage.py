"""curate: parsed instructions → those worth answering, each with what it is for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import gate
from stages.contract.tables import make_table
from stages.curate.filters import UNSUITABLE_WORDS, Reason, reason_to_drop
from stages.curate.rouge import deduplicate
from stages.curate.settings import WARMUP_SHARE, CurateSettings
from stages.curate.split import first_side

ROWS = pa.schema(
    [(name, pa.string()) for name in ("instruction_id", "prompt_id", "prompt", "output", "instruction", "split")]
)
DROPPED = pa.schema(
    [
        ("instruction_id", pa.string()),
        ("instruction", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("score", pa.float64()),
    ]
)
Row = dict[str, Any]


def run(context: StageContext) -> None:
    settings: CurateSettings = context.settings
    rows: list[Row] = context.table("instructions").to_pylist()
    seeds: list[str] = context.table("seeds", "seeds").column("instruction").to_pylist()
    if context.has("shown"):  # other seeds than the run's own were shown to the teacher
        seeds += context.table("shown", "seeds").column("instruction").to_pylist()
    context.progress.begin(len(rows), phase="filtering")
    with context.meter.phase("compute"):
        suitable, dropped = _filtered(rows, settings)
        context.progress.update(len(dropped))
        context.check_stop()
        kept, duplicates = _deduplicated(suitable, seeds, settings.rouge_threshold)
        dropped += duplicates
        kept, cut = _at_most(kept, settings)
        dropped += cut
    reasons = Counter(each["reason"] for each in dropped)
    if len(kept) < settings.least_rows:
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise gate(
            f"{len(kept)} of {len(rows)} instructions are kept, and {settings.least_rows} are asked for ({counts})",
            where="curate.least_rows",
            hint="generate more (instructions.prompts), or look at what was dropped",
        )
    splits = _splits(kept, settings)
    for row in kept:
        row["split"] = splits[row["prompt_id"]]
    context.meter.count(rows_in=len(rows), rows_kept=len(kept))
    context.publish(
        tables={
            "rows": make_table([{name: row[name] for name in ROWS.names} for row in kept], ROWS),
            "dropped": make_table(dropped, DROPPED),
        },
        figures={
            "rows_in": len(rows),
            "kept": len(kept),
            "dropped": dict(reasons),
            "splits": dict(Counter(row["split"] for row in kept)),
        },
    )


def _filtered(rows: list[Row], settings: CurateSettings) -> tuple[list[Row], list[Row]]:
    words = UNSUITABLE_WORDS if settings.unsuitable_words is None else settings.unsuitable_words
    kept, dropped = [], []
    for row in rows:
        drop = reason_to_drop(
            row["instruction"],
            least_characters=settings.least_characters,
            most_characters=settings.most_characters,
            unsuitable_words=words,
        )
        if drop is None:
            kept.append(row)
        else:
            detail = row["reason"] or "" if drop.reason is Reason.UNPARSED else drop.detail
            dropped.append(_dropped(row, drop.reason, detail, None))
    return kept, dropped


def _deduplicated(rows: list[Row], seeds: list[str], threshold: float) -> tuple[list[Row], list[Row]]:
    verdicts = deduplicate([row["instruction"] for row in rows], seeds, threshold)
    kept, dropped = [], []
    for row, found in zip(rows, verdicts, strict=True):
        if found is None:
            kept.append(row)
        else:
            nearest = seeds[found.position] if found.among == "against" else rows[found.position]["instruction"]
            dropped.append(_dropped(row, Reason.DUPLICATE, nearest, found.score))
    return kept, dropped


def _dropped(row: Row, reason: Reason, detail: str, score: float | None) -> Row:
    return {
        "instruction_id": row["instruction_id"],
        "instruction": row["instruction"],
        "reason": str(reason),
        "detail": detail,
        "score": score,
    }


def _at_most(kept: list[Row], settings: CurateSettings) -> tuple[list[Row], list[Row]]:
    """(kept, cut), the cut ones as dropped rows."""
    if settings.most_rows is None or len(kept) <= settings.most_rows:
        return kept, []
    chosen = first_side([row["prompt_id"] for row in kept], seed=settings.seed + 1, rows=settings.most_rows)
    # Whole prompts come near the number; the rest is cut in order, which is the order of generation.
    stay = [row for row in kept if row["prompt_id"] in chosen][: settings.most_rows]
    names = {row["instruction_id"] for row in stay}
    detail = f"most_rows is {settings.most_rows}"
    cut = [row for row in kept if row["instruction_id"] not in names]
    return stay, [_dropped(row, Reason.OVER_MOST_ROWS, detail, None) for row in cut]


def _splits(kept: list[Row], settings: CurateSettings) -> dict[str, str]:
    prompts = [row["prompt_id"] for row in kept]
    if settings.role == "train":
        return dict.fromkeys(prompts, "train")
    if settings.warmup_rows is not None:
        warmup = first_side(prompts, seed=settings.seed, rows=min(settings.warmup_rows, len(kept) - 1))
    else:
        warmup = first_side(prompts, seed=settings.seed, share=settings.warmup_share or WARMUP_SHARE)
    return {each: "warmup" if each in warmup else "candidate" for each in prompts}
