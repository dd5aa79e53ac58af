"""aggregate: scores of responses → mean scores of instructions, and how much they say about the instruction."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from stages.aggregate.settings import AggregateSettings
from stages.aggregate.variance import Aggregate, Reliability, aggregate_scores
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table

ROWS = pa.schema(
    [(name, pa.string()) for name in ("instruction_id", "prompt_id", "instruction", "output", "prompt")]
    + [("n", pa.int32())]
    + [(name, pa.float64()) for name in ("score", "stderr", "noise")]
)
COMPONENTS = pa.schema(
    [("component", pa.string())]
    + [(name, pa.float64()) for name in ("variance", "low", "high", "share")]
    + [("truncated", pa.bool_())]
)


def run(context: StageContext) -> None:
    settings: AggregateSettings = context.settings
    scores = context.table("scores", columns=("prompt_id", "instruction_id", "score", "noise"))
    texts = {row["instruction_id"]: row for row in context.table("instructions").to_pylist()}
    context.progress.begin(scores.num_rows, unit="scores", phase="aggregating")
    with context.meter.phase("compute"):
        columns = scores.to_pydict()
        try:
            found = aggregate_scores(
                columns["prompt_id"],
                columns["instruction_id"],
                columns["score"],
                columns["noise"],
                level=settings.level,
            )
        except ValueError as error:
            raise bad_data(str(error), where="aggregate: scores") from None
    rows = [_row(asdict(mean), texts[mean.instruction_id]) for mean in found.means]
    context.meter.count(rows_in=scores.num_rows, rows_kept=len(rows))
    context.progress.update(scores.num_rows)
    components = [asdict(each) for each in found.components]
    for each in components:
        each["component"] = each.pop("name")
    context.publish(
        tables={"rows": make_table(rows, ROWS), "components": make_table(components, COMPONENTS)},
        figures=_figures(found),
    )


def _row(mean: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    return {**mean, **{name: text[name] for name in ("instruction", "output", "prompt")}}


def _figures(found: Aggregate) -> dict[str, Any]:
    """`one_response` is the reliability of a single score, `mean` that of the means this artifact holds."""
    return {
        "instructions": len(found.means),
        "responses": found.responses,
        "reliability": _reliability(found.reliability, found.responses),
        "within_prompt_reliability": _reliability(found.within_prompt_reliability, found.responses),
        "components": {each.name: asdict(each) for each in found.components},
        "noise_variance": found.noise_variance,
        "dropped": found.dropped,
        "unscored": found.unscored,
    }


def _reliability(found: Reliability, responses: float) -> dict[str, Any]:
    by_responses = {str(k): found.of_mean(k) for k in (1, 2, 4, 8)}
    return {**asdict(found), "mean": found.of_mean(responses), "by_responses": by_responses}
