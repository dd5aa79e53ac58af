"""pairs: scores of instructions, of responses or of both → preference pairs for DPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import bad_settings, gate
from stages.pairs.build import Found, Pairs, Scored, Without, build_pairs
from stages.pairs.publish import publish_pairs
from stages.pairs.settings import INSTRUCTION, RESPONSE, PairsSettings

ROWS = pa.schema(
    [
        (name, pa.string())
        for name in ("pair_id", "prompt_id", "prompt", "chosen", "rejected", "chosen_id", "rejected_id")
    ]
    + [(name, pa.float64()) for name in ("chosen_score", "rejected_score", "gap", "gap_stderr")]
    + [("split", pa.string()), ("kind", pa.string())]
)
_SCORE = ("score", "stderr", "noise")


def run(context: StageContext) -> None:
    settings: PairsSettings = context.settings
    outputs = []
    if settings.optimise != "responses":
        _check_reliability(context, settings)
        outputs += _instructions(context)
    if settings.optimise != "instructions":
        outputs += _responses(context)
    context.progress.begin(len(outputs), unit="outputs", phase="pairing")
    with context.meter.phase("compute"):
        try:
            pairs = build_pairs(
                outputs,
                policy=settings.policy,
                least_gap_se=settings.least_gap_se,
                most_per_prompt=settings.most_per_prompt,
                heldout_share=settings.heldout_share,
                seed=settings.seed,
            )
        except ValueError as error:
            raise bad_settings(str(error), where="pairs") from None
    publish_pairs(
        context,
        [vars(row) for row in pairs.rows],
        ROWS,
        {
            "prompts": pairs.prompts,
            "without": _named(pairs.without),
            "ties": pairs.ties,
            "over_cap": pairs.over_cap,
            "kinds": {kind: _figures(each) for kind, each in pairs.kinds.items()},
        },
        read=len(outputs),
        out_of=f"{pairs.prompts} prompts",
        reasons=_reasons(pairs),
        hint=_hint(pairs),
    )


def _instructions(context: StageContext) -> list[Scored]:
    columns = ("instruction_id", "prompt_id", "prompt", "output", *_SCORE)
    return [
        Scored(
            id=row["instruction_id"],
            group=row["prompt_id"],
            **{name: row[name] for name in ("prompt_id", "prompt", "output", *_SCORE)},
        )
        for row in context.table("scores", columns=columns).to_pylist()
        if row["score"] is not None
    ]


def _responses(context: StageContext) -> list[Scored]:
    texts = {
        row["response_id"]: row
        for row in context.table("responses", columns=("response_id", "prompt", "output")).to_pylist()
    }
    columns = ("response_id", "instruction_id", "prompt_id", *_SCORE)
    return [
        Scored(
            id=row["response_id"],
            group=row["instruction_id"],
            prompt=texts[row["response_id"]]["prompt"],
            output=texts[row["response_id"]]["output"],
            kind=RESPONSE,
            **{name: row[name] for name in ("prompt_id", *_SCORE)},
        )
        for row in context.table("response_scores", columns=columns).to_pylist()
        if row["score"] is not None
    ]


def _figures(found: Found) -> dict[str, Any]:
    """`prompts` are instructions where `kind` is response."""
    return {
        "pairs": found.pairs,
        "prompts": found.groups,
        "without": _named(found.without),
        "ties": found.ties,
        "over_cap": found.over_cap,
    }


def _named(reasons: Mapping[Without, int]) -> dict[str, int]:
    return {str(reason): count for reason, count in reasons.items()}


def _check_reliability(context: StageContext, settings: PairsSettings) -> None:
    if not settings.least_reliability:
        return
    found = context.artifact("scores").manifest.figures["within_prompt_reliability"]
    mean = found["mean"]
    if mean is None or mean < settings.least_reliability:
        shown = f"unknown ({found['unknown']})" if mean is None else f"{mean:.2f}"
        more = "score more responses an instruction (responses.samples)"
        raise gate(
            f"the reliability of an instruction's mean score is {shown}, and {settings.least_reliability} is asked for",
            where="pairs.least_reliability",
            hint=f"{more}, or more instructions a prompt (instructions.samples)" if mean is None else more,
        )


def _hint(pairs: Pairs) -> str:
    most = max(pairs.without, key=lambda reason: pairs.without[reason], default=None)
    if most is Without.STDERR_UNKNOWN:
        return (
            "a standard error needs several scores: more responses an instruction (responses.samples), or more "
            "readable ratings a response (judge.samples); or set pairs.least_gap_se to 0"
        )
    return "generate more candidates, or choose policy best_worst where nearly everything helps"


def _reasons(pairs: Pairs) -> str:
    counts = [
        f"{count} {'prompts' if kind == INSTRUCTION else 'instructions'} {str(reason).replace('_', ' ')}"
        for kind, found in pairs.kinds.items()
        for reason, count in found.without.items()
    ]
    return ", ".join(counts) or "none"
