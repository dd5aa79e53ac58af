"""influence: candidates → what each does for the student. A chunk is some prompts with all their responses.

In `two_stage` scores of first order stand beside corrected and exact ones, and pairs are made of both. So first order
is put on the scale of exact scores, by the line that the audit found, and the instructions at either end of a prompt
are looked at again until those at the ends have been: a correction that takes the best one down brings up another.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.contract.errors import gate
from stages.contract.tables import make_table
from stages.influence.inputs import Probes, Row, opened
from stages.influence.scores import is_tie
from stages.influence.select import Scored, deciding
from stages.influence.settings import InfluenceSettings
from stages.signals.rows import candidates, with_columns

ROWS = with_columns(
    *((name, pa.float64()) for name in ("first_order", "exact", "loss")),
    ("reference_nll", pa.list_(pa.float64())),
    ("truncated", pa.bool_()),  # whether it is scored without its end, which did not fit
)

_READ = ("response_id", "instruction_id", "prompt_id", "instruction", "response")
# Candidates of one call, for each device: between two calls the stage can be stopped.
_ROUND = 8


def run(context: StageContext) -> None:
    settings: InfluenceSettings = context.settings
    audit = _Audit(context)
    method = _method(context, audit)
    rows_of = _ByPrompt(context)
    prompts = pa.table({"prompt_id": rows_of.prompts})
    cut = 0
    with ExitStack() as stack:
        probes = stack.enter_context(opened(context)) if context.remaining(prompts) else None
        for chunk in context.chunks(prompts, unit="prompts"):
            assert probes is not None
            rows = rows_of.between(chunk.start, chunk.stop)
            with context.meter.phase("compute", devices=probes.devices):
                scored = _score(context, probes, rows, method, settings, audit)
            context.meter.count(
                tokens=sum(row["tokens"] for row in scored),
                rows_in=len(rows),
                rows_kept=sum(row["score"] is not None for row in scored),
            )
            cut += sum(row["truncated"] for row in scored)
            chunk.commit({"rows": make_table(scored, ROWS)})
    if cut:
        context.log.warning("candidates lost their end", candidates=cut)
    context.publish(
        figures={
            "method": method,
            "asked": settings.method,
            "audit": audit.figures,
            "reference_truncated": probes.reference_truncated if probes else None,
        }
    )


def _method(context: StageContext, audit: _Audit) -> str:
    """What the recipe asks for, as far as the audit allows it.

    Raises:
        StageError: GATE where scores would rest on exact ones, and those are noise.
    """
    settings: InfluenceSettings = context.settings
    if settings.method == "first_order":
        return settings.method
    if audit.decision == "noise":
        sigma, first_order = audit.sigma("exact"), audit.sigma("first_order")
        raise gate(
            f"rounding moves an exact score by {sigma:.2g} (σ), and exact scores of {audit.figures['candidates']} "
            f"candidates differ by {audit.figures['spread']:.2g} (their standard deviation): they rank nothing and "
            "cannot judge first order",
            where=f"{context.task.node}: the audit's figures",
            hint=f"{_more_precise(settings)}, or influence.method: first_order, whose σ is {first_order:.2g} but whose "
            "agreement with exact scores stays unknown",
        )
    return "exact" if settings.method == "two_stage" and audit.decision == "exact" else settings.method


def _more_precise(settings: InfluenceSettings) -> str:
    if settings.forward_dtype != "float32":
        return "influence.forward_dtype: float32"
    if settings.products != "fp32":
        return "influence.products: fp32"
    return "a larger influence.lr: scores grow with it, rounding does not"


class _ByPrompt:
    """Candidates by prompt, prompts in the order of their first candidate.

    Of all candidates only the prompts' ids are read: each of many shards would read a million texts to score a few of
    them. Rows become Python's only when asked for.
    """

    def __init__(self, context: StageContext) -> None:
        found = candidates(context, columns=("prompt_id",), numbered=True)
        runs = pc.run_end_encode(found["prompt_id"].combine_chunks())  # a prompt's candidates mostly follow each other
        names = runs.values.dictionary_encode()
        self.prompts: pa.Array = names.dictionary
        prompt_of = np.repeat(names.indices.to_numpy(), np.diff(runs.run_ends.to_numpy(), prepend=0))
        order = np.argsort(prompt_of, kind="stable")
        self._starts = np.concatenate(([0], np.cumsum(np.bincount(prompt_of))))
        self._places = found["place"].to_numpy()[order]
        self._context = context

    def between(self, start: int, stop: int) -> list[Row]:
        """All candidates of the prompts [start, stop) of this shard."""
        begin = self._starts[self._part.start]
        first, last = int(self._starts[start] - begin), int(self._starts[stop] - begin)
        listed: list[Row] = self._rows.slice(first, last - first).to_pylist()
        return listed

    @cached_property
    def _part(self) -> range:
        return self._context.part(len(self.prompts))

    @cached_property
    def _rows(self) -> pa.Table:
        """The shard's, by prompt: then a prompt is a slice, which costs nothing."""
        places = self._places[self._starts[self._part.start] : self._starts[self._part.stop]]
        first, last = int(places.min()), int(places.max())
        return self._context.table("rows", columns=_READ, rows=range(first, last + 1)).take(pa.array(places - first))


class _Audit:
    """What the audit found: its decision, the noise floors and the exact scores that need not be taken again."""

    def __init__(self, context: StageContext) -> None:
        self.figures: dict[str, Any] = {}
        self.exact: dict[str, Row] = {}
        if context.has("audit"):
            self.figures = context.artifact("audit").manifest.figures
            self.exact = {
                row["response_id"]: {
                    "score": row["exact"],
                    "stderr": row["exact_stderr"],
                    **{name: row[name] for name in ("exact", "loss", "reference_nll")},
                }
                for row in context.table("audit").to_pylist()
                if row["exact"] is not None
            }

    @property
    def decision(self) -> str:
        return str(self.figures.get("decision", "two_stage"))

    @property
    def line(self) -> tuple[float, float]:
        """(intercept, slope) from first order to exact; a line that would not keep the order is none."""
        intercept, slope = self.figures.get("intercept"), self.figures.get("slope")
        return (intercept, slope) if intercept is not None and slope is not None and slope > 0 else (0.0, 1.0)

    def sigma(self, method: str) -> float | None:
        """Of rounding alone."""
        value = self.figures.get("noise", {}).get(method)
        return float(value) if value is not None else None

    def noise(self, method: str) -> float | None:
        """By how much a score may be wrong: rounding, and what a method that is not exact misses of the exact score."""
        sigma = self.sigma(method)
        judged = {"first_order": self.figures, "corrected": self.figures.get("corrected")}.get(method) or {}
        return None if sigma is None else math.hypot(sigma, judged.get("residual") or 0.0)


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
            found[row["response_id"]].update(tokens=example.tokens, truncated=example.truncated)
    first: dict[str, Any] = {}
    if method != "exact":
        for start in range(0, len(usable), _ROUND * probes.devices):
            context.check_stop()
            some = [row["response_id"] for row in usable[start : start + _ROUND * probes.devices]]
            first |= zip(some, probes.scorer.first_orders([examples[name] for name in some]), strict=True)
        for name, result in first.items():
            _add(found[name], "first_order", result)
        if method == "two_stage":
            for name in first:
                _calibrate(found[name], *audit.line)
    corrects = method == "two_stage" and probes.corrects
    done: set[str] = set()
    while again := _wanted(method, found, settings.per_side) - done:
        for name in (each for each in found if each in again):
            context.check_stop()
            if known := audit.exact.get(name):
                found[name].update(known, method="exact")
            elif corrects:
                _add(found[name], "corrected", probes.scorer.corrected(examples[name], first[name]))
            else:
                _add(found[name], "exact", probes.scorer.exact(examples[name]))
        done |= again
    for each in found.values():
        noise = audit.noise(each["method"]) if each["score"] is not None else None
        each["noise"] = noise
        each["tie"] = noise is not None and is_tie(each["score"], noise)
    return list(found.values())


def _blank(row: Row) -> Row:
    names = {name: row[name] for name in ("response_id", "instruction_id", "prompt_id")}
    empty = dict.fromkeys(("score", "stderr", "first_order", "exact", "noise", "loss", "reference_nll", "reason"))
    return {**names, **empty, "method": None, "tie": False, "tokens": 0, "truncated": False}


def _add(row: Row, method: str, result: Any) -> None:
    row.update(
        method=method,
        score=_finite(result.score),
        stderr=_finite(result.stderr),
        loss=_finite(result.loss),
        reason=result.reason,
    )
    if method != "corrected":
        row[method] = row["score"]
    if method == "exact" and row["score"] is not None:
        row["reference_nll"] = result.nll.tolist()


def _calibrate(row: Row, intercept: float, slope: float) -> None:
    """Puts a score of first order on the scale of exact scores; the column `first_order` stays what was computed."""
    if row["score"] is not None:
        row.update(score=intercept + slope * row["score"], stderr=row["stderr"] and slope * row["stderr"])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _wanted(method: str, found: dict[str, Row], per_side: int) -> set[str]:
    """The responses that need more than first order, by the scores there are."""
    if method == "exact":
        return {name for name, row in found.items() if row["reason"] is None}
    return _deciding(found.values(), per_side) if method == "two_stage" else set()


def _deciding(scored: Iterable[Row], per_side: int) -> set[str]:
    """The responses of the instructions at either end of each prompt, by their mean score.

    Pairs are made of instructions, so all of an instruction's responses are looked at again or none is.
    """
    scores: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in scored:
        if row["score"] is not None:
            scores[row["instruction_id"], row["prompt_id"]].append(row)
    means = [
        Scored(instruction, prompt, sum(each["score"] for each in rows) / len(rows))
        for (instruction, prompt), rows in scores.items()
    ]
    chosen = deciding(means, per_side=per_side)
    return {row["response_id"] for (instruction, _), rows in scores.items() if instruction in chosen for row in rows}
