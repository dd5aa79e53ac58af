"""influence: candidates → what each does for the student. A chunk is some prompts with all their responses."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.influence.inputs import Probes, Row, candidate_rows, load
from stages.influence.scores import is_tie
from stages.influence.select import Scored, deciding
from stages.influence.settings import InfluenceSettings

ROWS = pa.schema(
    [(name, pa.string()) for name in ("response_id", "instruction_id", "prompt_id", "method")]
    + [(name, pa.float64()) for name in ("score", "stderr", "first_order", "exact", "noise")]
    + [
        ("tie", pa.bool_()),
        ("loss", pa.float64()),
        ("tokens", pa.int32()),
        ("reference_nll", pa.list_(pa.float64())),
        ("reason", pa.string()),
    ]
)


def run(context: StageContext) -> None:
    settings: InfluenceSettings = context.settings
    audit = _Audit(context)
    method = "exact" if settings.method == "two_stage" and audit.decision == "exact" else settings.method
    by_prompt: defaultdict[str, list[Row]] = defaultdict(list)
    for row in candidate_rows(context):
        by_prompt[row["prompt_id"]].append(row)
    prompts = pa.table({"prompt_id": pa.array(list(by_prompt), pa.string())})
    probes = load(context) if context.remaining(prompts) else None
    for chunk in context.chunks(prompts, unit="prompts"):
        assert probes is not None
        rows = [row for name in chunk.rows.column("prompt_id").to_pylist() for row in by_prompt[name]]
        with context.meter.phase("compute", devices=1):
            scored = _score(context, probes, rows, method, settings, audit)
        context.meter.count(
            tokens=sum(row["tokens"] for row in scored),
            rows_in=len(rows),
            rows_kept=sum(row["score"] is not None for row in scored),
        )
        chunk.commit({"rows": make_table(scored, ROWS)})
    context.publish(figures={"method": method, "asked": settings.method, "audit": audit.figures})


class _Audit:
    """What the audit found: its decision, the noise floors and the exact scores that need not be taken again."""

    def __init__(self, context: StageContext) -> None:
        self.figures: dict[str, Any] = {}
        self.exact: dict[str, Row] = {}
        if context.has("audit"):
            self.figures = context.artifact("audit").manifest.figures
            self.exact = {row["response_id"]: row for row in context.table("audit").to_pylist()}

    @property
    def decision(self) -> str:
        return str(self.figures.get("decision", "two_stage"))

    def noise(self, method: str) -> float | None:
        value = self.figures.get("noise", {}).get(method)
        return float(value) if value is not None else None


def _score(
    context: StageContext, probes: Probes, rows: list[Row], method: str, settings: InfluenceSettings, audit: _Audit
) -> list[Row]:
    examples = {row["response_id"]: probes.encoder.encode(row["instruction"], row["response"]) for row in rows}
    usable = [row for row in rows if not hasattr(examples[row["response_id"]], "reason")]
    found: dict[str, Row] = {row["response_id"]: _blank(row) for row in rows}
    for row in rows:
        example = examples[row["response_id"]]
        if hasattr(example, "reason"):
            found[row["response_id"]]["reason"] = f"{example.reason}: {example.detail}"
        else:
            found[row["response_id"]]["tokens"] = example.tokens
    if method != "exact":
        for row in usable:
            context.check_stop()
            _add_first_order(found[row["response_id"]], probes.prober.first_order(examples[row["response_id"]]))
    chosen = {row["response_id"] for row in usable}
    if method == "first_order":
        chosen = set()
    elif method == "two_stage":
        chosen = _deciding(found.values(), settings.per_side) | (chosen & audit.exact.keys())
    for row in usable:
        name = row["response_id"]
        if name not in chosen:
            continue
        context.check_stop()
        if name in audit.exact and audit.exact[name]["exact"] is not None:
            known = audit.exact[name]
            _add_exact(found[name], known["exact"], known["exact_stderr"], known["loss"], known["reference_nll"], None)
        else:
            result = probes.prober.exact(examples[name])
            _add_exact(found[name], result.score, result.stderr, result.loss, result.nll.tolist(), result.reason)
    for each in found.values():
        noise = audit.noise(each["method"]) if each["score"] is not None else None
        each["noise"] = noise
        each["tie"] = noise is not None and is_tie(each["score"], noise)
    return list(found.values())


def _blank(row: Row) -> Row:
    names = {name: row[name] for name in ("response_id", "instruction_id", "prompt_id")}
    empty = dict.fromkeys(("score", "stderr", "first_order", "exact", "noise", "loss", "reference_nll", "reason"))
    return {**names, **empty, "method": None, "tie": False, "tokens": 0}


def _add_first_order(row: Row, result: Any) -> None:
    row.update(
        method="first_order",
        score=_finite(result.score),
        stderr=_finite(result.stderr),
        first_order=_finite(result.score),
        loss=_finite(result.loss),
        reason=result.reason,
    )


def _add_exact(
    row: Row, score: float, stderr: float | None, loss: float | None, nll: list[float] | None, reason: str | None
) -> None:
    row.update(
        method="exact",
        score=_finite(score),
        stderr=_finite(stderr),
        exact=_finite(score),
        loss=_finite(loss),
        reference_nll=nll if _finite(score) is not None else None,
        reason=reason,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _deciding(scored: Iterable[Row], per_side: int) -> set[str]:
    """The responses of the instructions at either end of each prompt, by their mean first-order score.

    Pairs are made of instructions, so an instruction's responses are all scored exactly or none is.
    """
    scores: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in scored:
        if row["first_order"] is not None:
            scores[row["instruction_id"], row["prompt_id"]].append(row)
    means = [
        Scored(instruction, prompt, sum(each["first_order"] for each in rows) / len(rows))
        for (instruction, prompt), rows in scores.items()
    ]
    chosen = deciding(means, per_side=per_side)
    return {row["response_id"] for (instruction, _), rows in scores.items() if instruction in chosen for row in rows}
