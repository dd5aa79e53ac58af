"""accuracy: every student's answers to the test questions → exact match by task, category and number of examples."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import combinations
from typing import Any

import pyarrow as pa

from stages.accuracy.bootstrap import TaskBootstrap, right_answers
from stages.accuracy.settings import AccuracySettings
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.evaluate.bootstrap import Interval
from stages.evaluate.names import split_replica

PREFIX = "answers."
OVERALL = "all"
# A row a student and question: what `comparison` reads; `reason` says why there is no answer, which is never right.
ROWS = pa.schema(
    [
        ("student", pa.string()),
        ("seed", pa.int64()),
        ("item_id", pa.string()),
        ("task", pa.string()),
        ("category", pa.string()),
        ("shots", pa.int32()),
        ("correct", pa.float64()),
        ("reason", pa.string()),
    ]
)
LEVELS = pa.schema(
    [("student", pa.string()), ("shots", pa.int32()), ("level", pa.string()), ("name", pa.string())]
    + [(name, pa.float64()) for name in ("accuracy", "low", "high")]
    + [(name, pa.int32()) for name in ("questions", "seeds", "answers", "unparsed")]
)
Row = dict[str, Any]
Answers = dict[str, dict[str, Row]]  # task → item → row


def run(context: StageContext) -> None:
    settings: AccuracySettings = context.settings
    categories: dict[str, str] = {
        each["task"]: each["category"] for each in context.table("tasks", "tasks").to_pylist()
    }
    answered = _questions(_answers(context), categories)
    by_shots: dict[int, list[Row]] = {}
    for row in answered:
        by_shots.setdefault(row["shots"], []).append(row)
    context.progress.begin(len(by_shots), unit="numbers of examples", phase="measuring")
    rows: list[Row] = []
    differences: list[Row] = []
    for shots, listed in by_shots.items():
        with context.meter.phase("compute"):
            measured, compared = _measured(shots, listed, categories, settings)
        rows += measured
        differences += compared
        context.progress.advance()
    context.meter.count(rows_in=sum(row["questions"] for row in rows if row["level"] == OVERALL), rows_kept=len(rows))
    context.publish(
        tables={"rows": make_table(answered, ROWS), "levels": make_table(rows, LEVELS)},
        figures={
            "students": [row for row in rows if row["level"] == OVERALL],
            "differences": differences,
            "confidence": settings.confidence,
        },
    )


def _answers(context: StageContext) -> dict[int, dict[str, Answers]]:
    """shots → student → task → item → row; the same questions for every student."""
    found: dict[int, dict[str, Answers]] = {}
    for name in context.names(PREFIX):
        student = name.removeprefix(PREFIX)
        for row in context.table(name, columns=("item_id", "task", "shots", "answer", "correct")).to_pylist():
            tasks = found.setdefault(row["shots"], {}).setdefault(student, {})
            tasks.setdefault(row["task"], {})[row["item_id"]] = row
    if not found:
        raise bad_data("there is no answer to count", where=f"{context.task.node}: answers")
    for shots, of_student in found.items():
        asked = {student: {task: sorted(each) for task, each in tasks.items()} for student, tasks in of_student.items()}
        first = next(iter(asked))
        other = next((student for student in asked if asked[student] != asked[first]), None)
        if other is not None:
            raise bad_data(
                f"{first} and {other} answered different questions after {shots} examples", where="accuracy: answers"
            )
    return found


def _questions(by_shots: dict[int, dict[str, Answers]], categories: dict[str, str]) -> list[Row]:
    rows = []
    for shots, of_student in sorted(by_shots.items()):
        for name, tasks in sorted(of_student.items()):
            student, seed = split_replica(name)
            told = {"student": student, "seed": seed, "shots": shots}
            for task, answers in sorted(tasks.items()):
                rows += [
                    {
                        **told,
                        "item_id": item,
                        "task": task,
                        "category": categories[task],
                        "correct": float(row["correct"]),
                        "reason": "unparsed" if row["answer"] is None else None,
                    }
                    for item, row in sorted(answers.items())
                ]
    return rows


def _measured(
    shots: int, rows: list[Row], categories: dict[str, str], settings: AccuracySettings
) -> tuple[list[Row], list[Row]]:
    """(accuracies by student and group of tasks, differences of students over all tasks) for one number of examples."""
    right = right_answers(rows)
    tasks = sorted(right)
    students = sorted({row["student"] for row in rows})
    bootstrap = TaskBootstrap(right, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed)
    groups = [("task", task, [task]) for task in tasks]
    for category in sorted({categories[task] for task in tasks}):
        groups.append(("category", category, [task for task in tasks if categories[task] == category]))
    groups.append((OVERALL, OVERALL, tasks))
    unread = Counter((row["student"], row["task"]) for row in rows if row["reason"])
    levels = [
        {
            "student": student,
            "shots": shots,
            "level": level,
            "name": name,
            **_bounds(bootstrap.accuracy(student, members)),
            "questions": bootstrap.questions(members),
            "seeds": bootstrap.seeds(student),
            "answers": bootstrap.questions(members) * bootstrap.seeds(student),
            "unparsed": sum(unread[student, task] for task in members),
        }
        for student in students
        for level, name, members in groups
    ]
    differences = [
        {"shots": shots, "first": first, "second": second, **asdict(bootstrap.difference(first, second, tasks))}
        for first, second in combinations(students, 2)
    ]
    return levels, differences


def _bounds(found: Interval) -> Row:
    return {"accuracy": found.value, "low": found.low, "high": found.high}
