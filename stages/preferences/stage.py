"""preferences: in-context scores, rationales, questions → the pairs that DPO reads (`pairs`' columns and the task)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.pairs.publish import publish_pairs
from stages.pairs.stage import ROWS as PAIRS
from stages.preferences.build import Made, build
from stages.preferences.settings import PreferencesSettings

ROWS = pa.schema([*PAIRS, ("task", pa.string())])
_RATIONALES = ("response_id", "instruction_id", "task", "prompt", "output")
_QUESTIONS = ("instruction_id", "task", "prompt_id", "prompt", "output")


def run(context: StageContext) -> None:
    settings: PreferencesSettings = context.settings
    of_response = context.table("scores", columns=("response_id", "score")).to_pylist()
    scores = {row["response_id"]: row["score"] for row in of_response}
    rationales: list[dict[str, Any]] = context.table("rows", columns=_RATIONALES).to_pylist()
    questions = context.table("questions", columns=_QUESTIONS).to_pylist()
    context.progress.begin(len(rationales), unit="rationales", phase="pairing")
    scored = [
        {**row, "score": scores[row["response_id"]]} for row in rationales if scores.get(row["response_id"]) is not None
    ]
    with context.meter.phase("compute"):
        made = build(scored, questions, settings)
    by_kind = Counter((row["task"], row["kind"]) for row in made.rows)
    tasks = sorted({each["task"] for each in questions})
    publish_pairs(
        context,
        made.rows,
        ROWS,
        {
            "prompts": len({row["prompt_id"] for row in made.rows}),
            "unscored": len(rationales) - len(scored),
            "tasks": {task: {kind: by_kind[task, kind] for kind in ("question", "rationale")} for task in tasks},
            "without": dict(_counts(made)),
        },
        read=len(rationales),
        out_of=f"{len(questions)} questions with {len(scored)} scored rationales",
        reasons=_reasons(made),
        hint="scores that are all alike say that the preference set is too small or too hard for this student",
    )


def _counts(made: Made) -> list[tuple[str, int]]:
    return [
        (f"{kind}_{reason}", count) for kind, each in made.without.items() for reason, count in each.items() if count
    ]


def _reasons(made: Made) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in _counts(made)) or "none was left out"
