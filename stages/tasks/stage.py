"""tasks: rules and files → items (question, answer, what it is for) and tasks; no question is in two parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings
from stages.contract.tables import make_table
from stages.generation.seeds import random_for
from stages.prepare.read import BadRow, raw_rows
from stages.tasks.kinds import normal
from stages.tasks.rules import ENDING, RULES, Made
from stages.tasks.settings import TaskSettings, TaskSource, TasksSettings

ITEMS = pa.schema([(name, pa.string()) for name in ("item_id", "task", "role", "question", "answer", "rationale")])
TASKS = pa.schema(
    [(name, pa.string()) for name in ("task", "category", "kind", "about")] + [("labels", pa.list_(pa.string()))]
)
# The seeds once more, as `prepare` gives them: what reads a run's seeds need not know of tasks.
SEEDS = pa.schema([(name, pa.string()) for name in ("seed_id", "instruction", "response")])
RATIONALE = "rationale"  # a field of JSON rows that need not be there: the way to the answer, for shots
ROLES = ("seed", "validation", "test")
_TEST_BY_RULE = 100
_TRIES = 50  # draws for each question by rule: small ones repeat


def run(context: StageContext) -> None:
    settings: TasksSettings = context.settings
    context.progress.begin(len(settings.tasks), unit="tasks", phase="reading")
    items: list[dict[str, Any]] = []
    for name, task in settings.tasks.items():
        with context.meter.phase("compute"):
            items += _split(context, name, task, settings)
        context.progress.advance()
        context.check_stop()
    tasks = [
        {"task": name, "category": task.group, "kind": task.answers, "about": task.subject, "labels": list(task.labels)}
        for name, task in settings.tasks.items()
    ]
    seeds = [
        {"seed_id": each["item_id"], "instruction": each["question"], "response": each["answer"]}
        for each in items
        if each["role"] == "seed"
    ]
    context.meter.count(rows_in=len(items), rows_kept=len(items))
    context.publish(
        tables={
            "items": make_table(items, ITEMS),
            "tasks": make_table(tasks, TASKS),
            "seeds": make_table(seeds, SEEDS),
        },
        figures={
            "tasks": {
                name: {
                    **Counter(each["role"] for each in items if each["task"] == name),
                    "answers": _answers(items, name),
                }
                for name in settings.tasks
            }
        },
    )


def _answers(items: list[dict[str, Any]], task: str) -> int:
    """How many different answers a task's items have: 1 says that it asks nothing."""
    return len({each["answer"] for each in items if each["task"] == task})


def _split(context: StageContext, name: str, task: TaskSettings, settings: TasksSettings) -> list[dict[str, Any]]:
    needed = settings.seeds + settings.validation + (settings.test or (_TEST_BY_RULE if task.rule else 1))
    found = _by_rule(name, task, settings, needed) if task.rule else _read(context, name, task)
    if len(found) < needed:
        raise bad_settings(
            f"{name} has {len(found)} different questions, and {settings.seeds} seeds, {settings.validation} for "
            f"validation and {needed - settings.seeds - settings.validation} for the test are asked for",
            where=f"tasks.tasks.{name}",
            hint="lower tasks.seeds, tasks.validation or tasks.test, or give more rows",
        )
    if len({each.answer for each in found}) == 1:
        raise bad_data(f"every question has the answer {found[0].answer!r}", where=f"tasks.tasks.{name}")
    # By a hash of the question: rows that a file gains move no other one between two parts.
    ordered = sorted(found, key=lambda each: content_id("item", settings.seed, name, each.question))
    if settings.test is not None:
        ordered = ordered[: settings.seeds + settings.validation + settings.test]
    bounds = (settings.seeds, settings.seeds + settings.validation)
    return [
        {
            "item_id": content_id("item", name, each.question),
            "task": name,
            "role": ROLES[sum(place >= bound for bound in bounds)],
            "question": each.question,
            "answer": each.answer,
            "rationale": each.rationale,
        }
        for place, each in enumerate(ordered)
    ]


def _by_rule(name: str, task: TaskSettings, settings: TasksSettings, count: int) -> list[Made]:
    """`count` different questions, or as many as there seem to be."""
    assert task.rule is not None
    rule = RULES[task.rule]
    random = random_for("task", settings.seed, name)
    found: dict[str, Made] = {}
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        made = rule.make(random)
        found.setdefault(made.question, made)
    return list(found.values())


def _read(context: StageContext, name: str, task: TaskSettings) -> list[Made]:
    found: dict[str, Made] = {}
    for source in task.sources:
        for made, line in _rows(context, source):
            where = f"{source.shown}:{line}"
            if normal(task.answers, made.answer, task.labels) is None:
                raise bad_data(
                    f"{made.answer!r} is no answer of kind {task.answers}",
                    where=where,
                    hint=f"set tasks.tasks.{name}.kind",
                )
            known = found.setdefault(made.question, made)
            if known.answer != made.answer:
                raise bad_data(f"the same question has the answers {known.answer!r} and {made.answer!r}", where=where)
    return list(found.values())


def _rows(context: StageContext, source: TaskSource) -> Iterator[tuple[Made, int]]:
    for row in raw_rows(source, context.store, context.scratch):
        where = f"{source.shown}:{row.line}"
        if isinstance(row, BadRow):
            raise bad_data(row.detail, where=where)
        values = []
        for field in (source.fields.instruction, source.fields.response):
            value = row.values.get(field)
            if not isinstance(value, str) or not value.strip():
                raise bad_data(
                    f"the row has no text in the field {field!r}",
                    where=where,
                    hint=f"it has {', '.join(map(repr, row.values)) or 'none'}; name yours in fields",
                )
            values.append(value.strip())
        told = row.values.get(RATIONALE)
        rationale = told.strip() if isinstance(told, str) and told.strip() else ENDING.format(answer=values[1])
        yield Made(values[0], values[1], rationale), row.line
