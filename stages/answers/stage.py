"""answers: tasks, a model → its answer to every question and number of shots, and whether it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from stages.answers.settings import AnswersSettings
from stages.asking.requests import Answered, Asker
from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings
from stages.contract.tables import make_table
from stages.generation.teacher import Generator

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("task", pa.string()),
        ("shots", pa.int32()),
        ("output", pa.string()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("finish_reason", pa.string()),
        ("output_tokens", pa.int32()),
    ]
)
Row = dict[str, Any]


def run(context: StageContext) -> None:
    settings: AnswersSettings = context.settings
    items = context.table("tasks", "items").to_pylist()
    asked = _asked(items, settings)
    seeds = _seeds(items, max(settings.shots))
    student = Generator(context, "student", settings.engine, plain=True)
    asker = Asker(student, settings, context.table("tasks", "tasks").to_pylist(), items)
    for chunk in context.chunks(pa.Table.from_pylist(asked), unit="questions"):
        rows: list[Row] = chunk.rows.to_pylist()
        requests = [(row, asker.request(row, seeds[row["task"]][: row["shots"]])) for row in rows]
        answered = asker.ask(requests)
        context.meter.count(rows_in=len(rows), rows_kept=sum(each.answer is not None for each in answered))
        chunk.commit(
            {"rows": make_table(map(_row, rows, answered), SCHEMA)},
            figures={"asked": len(rows), "unparsed": _unparsed(rows, answered)},
        )


def _asked(items: Sequence[Row], settings: AnswersSettings) -> list[Row]:
    """Questions by task and shots, so that those which share examples stand together."""
    chosen = sorted(
        (each for each in items if each["role"] == settings.role), key=lambda each: (each["task"], each["item_id"])
    )
    if not chosen:
        raise bad_data(f"there is no {settings.role} question to ask", where="tasks: items")
    wanted = ("task", "item_id", "question", "answer")
    by_task: dict[str, list[Row]] = {}
    for each in chosen:
        by_task.setdefault(each["task"], []).append({name: each[name] for name in wanted})
    return [{**each, "shots": shots} for some in by_task.values() for shots in settings.shots for each in some]


def _seeds(items: Sequence[Row], needed: int) -> dict[str, list[tuple[str, str]]]:
    """(question, rationale) of every task's seeds, always in the same order."""
    found: dict[str, list[tuple[str, str]]] = {each["task"]: [] for each in items}
    for each in sorted(items, key=lambda each: str(each["item_id"])):
        if each["role"] == "seed":
            found[each["task"]].append((each["question"], each["rationale"]))
    for task, seeds in found.items():
        if len(seeds) < needed:
            raise bad_settings(
                f"{needed} shots are asked for, and {task} has {len(seeds)} seeds",
                where="answers.shots",
                hint="raise tasks.seeds, or ask for fewer shots",
            )
    return found


def _unparsed(rows: Sequence[Row], answered: Sequence[Answered]) -> dict[str, int]:
    return dict(Counter(row["task"] for row, each in zip(rows, answered, strict=True) if each.answer is None))


def _row(row: Mapping[str, Any], answered: Answered) -> Row:
    return {
        "item_id": row["item_id"],
        "task": row["task"],
        "shots": row["shots"],
        "output": answered.output,
        "answer": answered.answer,
        "correct": answered.correct,
        "finish_reason": answered.finish_reason,
        "output_tokens": answered.output_tokens,
    }
