"""audit: a uniform sample of candidates scored both ways."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.audit.settings import AuditSettings
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.influence.audit import audit
from stages.influence.inputs import Probes, Row, opened
from stages.influence.scorer import Base
from stages.influence.select import audit_sample
from stages.signals.rows import candidates

METHODS = ("first_order", "corrected", "exact")
ROWS = pa.schema(
    [("response_id", pa.string())]
    + [(f"{method}{part}", pa.float64()) for method in METHODS for part in ("", "_stderr")]
    + [("loss", pa.float64())]
    + [("reference_nll", pa.list_(pa.float64()))]
)


def run(context: StageContext) -> None:
    settings: AuditSettings = context.settings
    rows = candidates(context)
    sample = audit_sample(rows["response_id"].to_pylist(), settings.size)
    sampled = rows.filter(pc.is_in(rows["response_id"], pa.array(sorted(sample), pa.string()))).to_pylist()
    with opened(context) as probes:
        encoded = [(row, probes.encoder.encode(row["instruction"], row["response"])) for row in sampled]
        usable = [(row["response_id"], example) for row, example in encoded if not hasattr(example, "reason")]
        if not usable:
            raise bad_data(
                f"none of the {len(encoded)} sampled candidates can be scored", where=f"{context.task.node}: rows"
            )
        noisy = [example for _, example in usable[: settings.noise_candidates]]
        context.progress.begin(len(usable) + 2 * len(noisy), unit="candidates", phase="auditing")
        with context.meter.phase("compute", devices=probes.devices):
            found = [_scored(context, probes, *each) for each in usable]
            context.progress.phase("measuring noise")
            noise = probes.scorer.noise(noisy, settings.noise_draws)
            context.progress.advance(2 * len(noisy))
        base = probes.scorer.base()
    context.publish(
        tables={"rows": make_table(found, ROWS)},
        figures={
            **_judged(found, "first_order", settings.threshold),
            "corrected": _judged(found, "corrected", settings.threshold) if base.corrected_rows else None,
            "corrected_rows": len(base.corrected_rows),
            "noise": noise,
            "reference_rows": len(base.nll),
            "reference_tokens": int(base.tokens.sum()),
            "flops": _flops(base, [example for _, example in usable], len(noisy), settings.noise_draws),
            "base_loss": float(base.nll.sum() / base.tokens.sum()),
        },
    )


def _scored(context: StageContext, probes: Probes, name: str, example: Any) -> Row:
    context.check_stop()
    (first,), exact = probes.scorer.first_orders([example]), probes.scorer.exact(example)
    finite = math.isfinite(exact.score) and math.isfinite(first.score)
    corrected, corrected_stderr = probes.scorer.correct(first, exact) if finite else (math.nan, math.nan)
    context.meter.count(tokens=example.tokens, rows_in=1, rows_kept=1)
    context.progress.advance()
    values = {
        "first_order": first.score if finite else math.nan,
        "first_order_stderr": first.stderr,
        "corrected": corrected,
        "corrected_stderr": corrected_stderr,
        "exact": exact.score if finite else math.nan,
        "exact_stderr": exact.stderr,
        "loss": exact.loss if finite else math.nan,
    }
    return {
        "response_id": name,
        **{key: value if math.isfinite(value) else None for key, value in values.items()},
        "reference_nll": exact.nll.tolist() if finite else None,
    }


def _flops(base: Base, examples: list[Any], noisy: int, draws: int) -> float:
    """Operations of the passes taken: what `plan` divides the time by to know this machine's speed.

    2 a parameter and token of a forward pass, twice that for its backward pass.
    """
    rows = 2.0 * base.parameters * base.sequence_tokens
    step = 6.0 * base.parameters * sum(len(example.ids) for example in examples) / len(examples)
    scored = len(examples) * (2 * step + rows) + 4 * rows
    noise = draws * (noisy * (step + rows) + rows) + 3 * rows + 2 * noisy * step
    return scored + noise


def _judged(found: list[Row], approximate: str, threshold: float) -> dict[str, Any]:
    both = [row for row in found if row["exact"] is not None]
    scores = [row[approximate] if row[approximate] is not None else math.nan for row in both]
    return audit(scores, [row["exact"] for row in both], threshold=threshold).figures()
