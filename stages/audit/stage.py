"""audit: a uniform sample of candidates scored both ways."""

from __future__ import annotations

import math

import pyarrow as pa

from stages.audit.settings import AuditSettings
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.influence.inputs import Row, candidate_rows, load
from stages.influence.select import audit_sample

ROWS = pa.schema(
    [("response_id", pa.string())]
    + [(name, pa.float64()) for name in ("first_order", "first_order_stderr", "exact", "exact_stderr", "loss")]
    + [("reference_nll", pa.list_(pa.float64()))]
)


def run(context: StageContext) -> None:
    from stages.influence.audit import audit
    from stages.influence.noise import exact_noise, first_order_noise

    settings: AuditSettings = context.settings
    rows = candidate_rows(context)
    sample = audit_sample([row["response_id"] for row in rows], settings.size)
    probes = load(context)
    encoded = [
        (row, probes.encoder.encode(row["instruction"], row["response"]))
        for row in rows
        if row["response_id"] in sample
    ]
    usable = [(row, example) for row, example in encoded if not hasattr(example, "reason")]
    if not usable:
        raise bad_data(
            f"none of the {len(encoded)} sampled candidates can be scored", where=f"{context.task.node}: rows"
        )
    noisy = [example for _, example in usable[: settings.noise_candidates]]
    context.progress.begin(len(usable) + 2 * len(noisy), unit="candidates", phase="auditing")
    found: list[Row] = []
    with context.meter.phase("compute", devices=1):
        for row, example in usable:
            context.check_stop()
            first, exact = probes.prober.first_order(example), probes.prober.exact(example)
            finite = math.isfinite(exact.score) and math.isfinite(first.score)
            found.append(
                {
                    "response_id": row["response_id"],
                    "first_order": first.score if finite else None,
                    "first_order_stderr": first.stderr if math.isfinite(first.stderr) else None,
                    "exact": exact.score if finite else None,
                    "exact_stderr": exact.stderr if math.isfinite(exact.stderr) else None,
                    "loss": exact.loss if finite else None,
                    "reference_nll": exact.nll.tolist() if finite else None,
                }
            )
            context.meter.count(tokens=example.tokens, rows_in=1, rows_kept=1)
            context.progress.advance()
        both = [row for row in found if row["exact"] is not None]
        judged = audit(
            [row["first_order"] for row in both], [row["exact"] for row in both], threshold=settings.threshold
        )
        context.progress.phase("measuring noise")
        noise = {
            "first_order": first_order_noise(probes.prober, noisy),
            "exact": exact_noise(probes.prober, noisy, draws=settings.noise_draws),
        }
        context.progress.advance(2 * len(noisy))
    base = probes.prober.base_nll
    context.publish(
        tables={"rows": make_table(found, ROWS)},
        figures={
            **judged.figures(),
            "noise": noise,
            "reference_rows": len(base),
            "reference_tokens": int(probes.prober.reference_tokens.sum()),
            "base_loss": float(base.sum() / probes.prober.reference_tokens.sum()),
        },
    )
