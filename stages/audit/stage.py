"""audit: a uniform sample of candidates scored both ways."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa

from stages.audit.settings import AuditSettings
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.influence.audit import audit
from stages.influence.inputs import Probes, Row, opened
from stages.influence.scorer import Base
from stages.influence.select import audit_order
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
    with opened(context) as probes:
        usable = _sample(context, probes, rows, settings.size)
        for_noise = min(settings.noise_candidates, len(usable))
        context.progress.begin(len(usable) + 2 * for_noise, unit="candidates", phase="auditing")
        with context.meter.phase("compute", devices=probes.devices):
            found = [_scored(context, probes, *each) for each in usable]
            # Of one candidate without a finite score no noise is finite, nor any that is pooled with it.
            finite = [example for (_, example), row in zip(usable, found, strict=True) if row["exact"] is not None]
            if not finite:
                raise bad_data(
                    f"none of the {len(found)} sampled candidates has a finite score",
                    where=f"{context.task.node}: rows",
                    hint="look at the warm-up's losses and learning rate",
                )
            noisy = finite[:for_noise]
            context.progress.phase("measuring noise")
            noise = probes.scorer.noise(noisy, settings.noise_draws)
            context.progress.advance(2 * len(noisy))
        base = probes.scorer.base()
    judged = {method: _judged(found, method, settings.threshold, noise["exact"]) for method in METHODS[:2]}
    context.publish(
        tables={"rows": make_table(found, ROWS)},
        figures={
            **judged["first_order"],
            "corrected": judged["corrected"] if base.corrected_rows else None,
            "corrected_rows": len(base.corrected_rows),
            "noise": noise,
            "reference_rows": len(base.nll),
            "reference_truncated": probes.reference_truncated,
            "reference_tokens": int(base.tokens.sum()),
            "flops": _flops(base, [example for _, example in usable], len(noisy), settings.noise_draws),
            "base_loss": float(base.nll.sum() / base.tokens.sum()),
        },
    )


def _sample(context: StageContext, probes: Probes, rows: pa.Table, size: int) -> list[tuple[str, Any]]:
    """(response_id, example) of `size` candidates that can be scored, drawn uniformly, in the order of the rows.

    Raises:
        StageError: BAD_DATA where there is none.
    """
    texts = rows.select(["instruction", "response"])
    row_of = {name: row for row, name in enumerate(rows["response_id"].to_pylist())}
    found: dict[str, Any] = {}
    unusable: Counter[str] = Counter()
    for name in audit_order(row_of):
        if len(found) == size:
            break
        context.check_stop()
        (row,) = texts.slice(row_of[name], 1).to_pylist()
        example = probes.encoder.encode(row["instruction"], row["response"])
        if hasattr(example, "reason"):
            unusable[example.reason] += 1
        else:
            found[name] = example
    context.meter.count(rows_in=len(found) + unusable.total())
    reasons = ", ".join(f"{count} {reason}" for reason, count in unusable.items())
    if not found:
        raise bad_data(f"no candidate can be scored: {reasons}", where=f"{context.task.node}: rows")
    if unusable:
        context.log.warning("candidates that cannot be scored were passed over", reasons=reasons)
    return sorted(found.items(), key=lambda each: row_of[each[0]])


def _scored(context: StageContext, probes: Probes, name: str, example: Any) -> Row:
    context.check_stop()
    (first,), exact = probes.scorer.first_orders([example]), probes.scorer.exact(example)
    finite = math.isfinite(exact.score) and math.isfinite(first.score)
    corrected, corrected_stderr = probes.scorer.correct(first, exact) if finite else (math.nan, math.nan)
    if not finite:
        context.log.warning("no finite score", response_id=name, reason=exact.reason or first.reason)
    context.meter.count(tokens=example.tokens, rows_kept=int(finite))
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


def _judged(found: list[Row], approximate: str, threshold: float, sigma: float) -> dict[str, Any]:
    both = [row for row in found if row["exact"] is not None]
    scores = [row[approximate] if row[approximate] is not None else math.nan for row in both]
    return audit(scores, [row["exact"] for row in both], threshold=threshold, sigma=sigma).figures()
