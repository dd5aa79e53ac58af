"""select: drafted questions → those that are new, as many of each task as asked for.

A question that stands among the tasks' own, whatever their part, is dropped: it would show the student a question that
it is judged on. Questions of a task made by rule differ in a few words, so sameness is of the words, not ROUGE.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.errors import gate
from stages.contract.tables import make_table
from stages.select.settings import SelectSettings

ROWS = pa.schema(
    [
        (name, pa.string())
        for name in ("instruction_id", "prompt_id", "prompt", "output", "instruction", "split", "task", "teacher")
    ]
)
DROPPED = pa.schema([(name, pa.string()) for name in ("instruction_id", "task", "instruction", "reason")])
_TOO_MANY = "over_per_task"


def run(context: StageContext) -> None:
    settings: SelectSettings = context.settings
    rows: list[dict[str, Any]] = context.table("instructions").to_pylist()
    known = {
        (each["task"], _sameness(each["question"])): each["role"]
        for each in context.table("seeds", "items").to_pylist()
    }
    tasks: list[str] = context.table("seeds", "tasks")["task"].to_pylist()
    context.progress.begin(len(rows), unit="questions", phase="selecting")
    with context.meter.phase("compute"):
        reasons = _reasons(rows, known, settings)
        for task in tasks:
            _cut(rows, reasons, task, settings)
    kept = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
    counts = Counter(row["task"] for row in kept)
    dropped = [
        {**{name: row[name] for name in ("instruction_id", "task", "instruction")}, "reason": reason}
        for row, reason in zip(rows, reasons, strict=True)
        if reason is not None
    ]
    by_reason = Counter(each["reason"] for each in dropped)
    _check(tasks, counts, dropped, settings)
    split = "train" if settings.role == "train" else "candidate"
    context.meter.count(rows_in=len(rows), rows_kept=len(kept))
    context.progress.update(len(rows))
    context.publish(
        tables={
            "rows": make_table(
                [{**{name: row.get(name) for name in ROWS.names}, "split": split} for row in kept], ROWS
            ),
            "dropped": make_table(dropped, DROPPED),
        },
        figures={
            "rows_in": len(rows),
            "kept": len(kept),
            "dropped": dict(by_reason),
            "splits": {split: len(kept)},
            "tasks": {task: counts[task] for task in tasks},
            "short": {task: settings.per_task - counts[task] for task in tasks if counts[task] < settings.per_task},
        },
    )


def _sameness(question: str) -> str:
    return " ".join(question.lower().split())


def _reasons(
    rows: list[dict[str, Any]], known: dict[tuple[str, str], str], settings: SelectSettings
) -> list[str | None]:
    seen: set[tuple[str, str]] = set()
    found: list[str | None] = []
    for row in rows:
        text = row["instruction"]
        if text is None:
            found.append("unparsed")
            continue
        key = (row["task"], _sameness(text))
        if len(text) < settings.least_characters:
            found.append("too_short")
        elif len(text) > settings.most_characters:
            found.append("too_long")
        elif key in known:
            found.append(f"{known[key]}_question")
        elif key in seen:
            found.append("duplicate")
        else:
            seen.add(key)
            found.append(None)
    return found


def _cut(rows: list[dict[str, Any]], reasons: list[str | None], task: str, settings: SelectSettings) -> None:
    """Leaves `per_task` of a task's questions, by a hash of their ids."""
    places = [place for place, row in enumerate(rows) if row["task"] == task and reasons[place] is None]
    ranked = sorted(places, key=lambda place: content_id("select", settings.seed, rows[place]["instruction_id"]))
    for place in ranked[settings.per_task :]:
        reasons[place] = _TOO_MANY


def _check(tasks: list[str], counts: Counter[str], dropped: list[dict[str, Any]], settings: SelectSettings) -> None:
    for task in tasks:
        if counts[task] < settings.least_per_task:
            why = Counter(each["reason"] for each in dropped if each["task"] == task)
            told = ", ".join(f"{count} {reason}" for reason, count in why.most_common()) or "none was drafted"
            raise gate(
                f"{task} has {counts[task]} new questions, and {settings.least_per_task} are asked for ({told})",
                where="select.least_per_task",
                hint="draft more (questions.prompts), or look at what was dropped",
            )
