"""aggregate: scores of responses → mean scores of instructions, and how much they say about the instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.aggregate.settings import AggregateSettings
from stages.aggregate.variance import Aggregate, InstructionMean, Reliability, aggregate_scores
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

_TEXTS = ["instruction", "output", "prompt"]
_TAKEN = 65_536  # rows at once


def run(context: StageContext) -> None:
    settings: AggregateSettings = context.settings
    scores = context.table("scores", columns=("prompt_id", "instruction_id", "score", "noise"))
    texts = context.table("instructions", columns=("instruction_id", *_TEXTS))
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
        rows = _rows(found.means, texts)
    context.meter.count(rows_in=scores.num_rows, rows_kept=rows.num_rows)
    context.progress.update(scores.num_rows)
    components = [asdict(each) for each in found.components]
    for each in components:
        each["component"] = each.pop("name")
    context.publish(
        tables={"rows": rows, "components": make_table(components, COMPONENTS)},
        figures=_figures(found),
    )


def _rows(means: Sequence[InstructionMean], texts: pa.Table) -> pa.Table:
    """Means with the texts of their instructions, which stay Arrow's: there may be a million."""
    names = [field.name for field in fields(InstructionMean)]
    made = {name: pa.array([getattr(mean, name) for mean in means], ROWS.field(name).type) for name in names}
    places = pc.index_in(made["instruction_id"], value_set=texts["instruction_id"].combine_chunks())
    assert not places.null_count, "a score of an instruction without text"
    # More than 2 GiB of texts are no `string` column in one piece, and taking rows makes it one.
    large = texts.select(_TEXTS).cast(pa.schema([(name, pa.large_string()) for name in _TEXTS])).combine_chunks()
    taken = [
        large.take(places.slice(start, _TAKEN)).cast(pa.schema([(name, pa.string()) for name in _TEXTS]))
        for start in range(0, len(places), _TAKEN)
    ]
    made |= {name: pa.concat_tables(taken)[name] for name in _TEXTS}
    return pa.table(made).select(ROWS.names).cast(ROWS)


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
