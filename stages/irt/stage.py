"""irt: several models' answers to the validation questions → the preference set of each task.

A person of the model is one model with one number of shots. An answer that could not be parsed counts as wrong, as in
the exact match that it stands for; how many there were is a figure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.contract.context import StageContext
from stages.contract.errors import bad_data, gate
from stages.contract.tables import make_table
from stages.irt.model import Fit, fit
from stages.irt.settings import IrtSettings

PREFIX = "answers."
ROWS = pa.schema(
    [(name, pa.string()) for name in ("item_id", "task", "question", "answer")]
    + [(name, pa.float64()) for name in ("discrimination", "difficulty", "share_right")]
    + [("chosen", pa.bool_()), ("filler", pa.bool_())]
)
PERSONS = pa.schema(
    [
        ("task", pa.string()),
        ("model", pa.string()),
        ("shots", pa.int32()),
        ("ability", pa.float64()),
        ("share_right", pa.float64()),
        ("unparsed", pa.int32()),
    ]
)
Row = dict[str, Any]
Person = tuple[str, int]


def run(context: StageContext) -> None:
    settings: IrtSettings = context.settings
    items = {each["item_id"]: each for each in context.table("tasks", "items").to_pylist()}
    answers = _answers(context)
    context.progress.begin(len(answers), unit="tasks", phase="fitting")
    rows: list[Row] = []
    persons: list[Row] = []
    figures: dict[str, Any] = {}
    for task, by_person in sorted(answers.items()):
        with context.meter.phase("compute"):
            names, matrix = _matrix(task, by_person)
            found = fit(matrix)
        made = _rows([items[name] for name in names], matrix, found, settings)
        figures[task] = _figures(made, by_person, found, settings)
        if sum(row["chosen"] for row in made) < settings.least:
            raise gate(
                f"the preference set of {task} has {figures[task]['chosen']} questions, and {settings.least} are "
                "asked for",
                where="irt.least",
                hint=f"{figures[task]['alike']} of {len(made)} questions are answered alike by all; ask more or more "
                "different models (panel), or set irt.fill",
            )
        rows += made
        persons += [
            _person(task, person, answered, ability)
            for (person, answered), ability in zip(sorted(by_person.items()), found.abilities, strict=True)
        ]
        context.progress.advance()
    context.meter.count(rows_in=len(rows), rows_kept=sum(row["chosen"] for row in rows))
    context.publish(
        tables={"rows": make_table(rows, ROWS), "persons": make_table(persons, PERSONS)},
        figures={"size": settings.size, "tasks": figures},
    )


def _answers(context: StageContext) -> dict[str, dict[Person, dict[str, Row]]]:
    """task → (model, shots) → item → row."""
    found: dict[str, dict[Person, dict[str, Row]]] = {}
    for name in context.names(PREFIX):
        for row in context.table(name, columns=("item_id", "task", "shots", "answer", "correct")).to_pylist():
            person = (name.removeprefix(PREFIX), row["shots"])
            found.setdefault(row["task"], {}).setdefault(person, {})[row["item_id"]] = row
    if not found:
        raise bad_data("there is no answer to fit", where=f"{context.task.node}: answers")
    return found


def _matrix(task: str, by_person: dict[Person, dict[str, Row]]) -> tuple[list[str], NDArray[np.bool_]]:
    """(item ids [I], right [P, I]), persons in order."""
    names = sorted(next(iter(by_person.values())))
    for person, answered in by_person.items():
        if sorted(answered) != names:
            raise bad_data(f"{person[0]} answered other questions of {task} than the others", where="irt: answers")
    right = [[by_person[person][name]["correct"] for name in names] for person in sorted(by_person)]
    return names, np.array(right, dtype=np.bool_)


def _rows(items: list[Row], right_PI: NDArray[np.bool_], found: Fit, settings: IrtSettings) -> list[Row]:
    share_I = right_PI.mean(axis=0)
    rows = [
        {
            **{name: item[name] for name in ("item_id", "task", "question", "answer")},
            "discrimination": None if np.isnan(a) else float(a),
            "difficulty": None if np.isnan(b) else float(b),
            "share_right": float(share),
            "chosen": False,
            "filler": False,
        }
        for item, a, b, share in zip(items, found.discrimination, found.difficulty, share_I, strict=True)
    ]
    telling = sorted(
        (row for row in rows if row["discrimination"] is not None),
        key=lambda row: (-row["discrimination"], row["item_id"]),
    )
    # What everybody gets wrong may be what a good example helps with; what everybody gets right can only be lost.
    alike = sorted(
        (row for row in rows if row["discrimination"] is None), key=lambda row: (row["share_right"], row["item_id"])
    )
    chosen = telling[: settings.size]
    fillers = alike[: settings.size - len(chosen)] if settings.fill else []
    for row in (*chosen, *fillers):
        row["chosen"] = True
    for row in fillers:
        row["filler"] = True
    return rows


def _figures(rows: list[Row], by_person: dict[Person, dict[str, Row]], found: Fit, settings: IrtSettings) -> Row:
    chosen = [row for row in rows if row["chosen"]]
    asked = [row for answered in by_person.values() for row in answered.values()]
    answers = {row["answer"] for row in chosen}
    return {
        "questions": len(rows),
        "persons": len(by_person),
        "chosen": len(chosen),
        "short": max(0, settings.size - len(chosen)),
        "fillers": sum(row["filler"] for row in rows),
        "alike": sum(row["discrimination"] is None for row in rows),
        "all_right": sum(row["share_right"] == 1 for row in rows),
        "all_wrong": sum(row["share_right"] == 0 for row in rows),
        "unparsed": sum(row["answer"] is None for row in asked),
        "answers": len(asked),
        # A student that always says so scores 1, whatever its example taught it.
        "one_answer": next(iter(answers)) if len(answers) == 1 and len(chosen) > 1 else None,
        "converged": found.converged,
    }


def _person(task: str, person: Person, answered: dict[str, Row], ability: float) -> Row:
    return {
        "task": task,
        "model": person[0],
        "shots": person[1],
        "ability": float(ability),
        "share_right": sum(row["correct"] for row in answered.values()) / len(answered),
        "unparsed": sum(row["answer"] is None for row in answered.values()),
    }
