"""The stage `tasks`: what is made by rule or read, how it is split, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.tasks.settings import TasksSettings
from tests.support import run_stage

SMALL = {"seeds": 3, "validation": 5, "test": 4}


def bbh(folder: Path, rows: list[Any]) -> str:
    path = folder / "task.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def from_file(uri: str, **task: Any) -> dict[str, Any]:
    return {**SMALL, "tasks": {"mine": {"sources": [{"uri": uri}], "kind": "yes_no", "about": "yes or no", **task}}}


def row(question: str, answer: Any) -> dict[str, Any]:
    return {"input": question, "target": answer}


def questions(count: int = 12) -> list[dict[str, str]]:
    return [row(f"Is {number} odd?", "Yes" if number % 2 else "No") for number in range(count)]


def test_each_task_has_as_many_questions_of_each_part_as_asked_for_and_none_twice(file_store: Store) -> None:
    made = run_stage(file_store, "tasks", SMALL)
    items = made.table("items").to_pylist()
    assert Counter((each["task"], each["role"]) for each in items) == {
        (task, role): count
        for task in ("boolean_expressions", "object_counting", "word_sorting")
        for role, count in (("seed", 3), ("validation", 5), ("test", 4))
    }
    assert len({(each["task"], each["question"]) for each in items}) == len(items)
    assert made.table("seeds").num_rows == 9
    assert {each["kind"] for each in made.table("tasks").to_pylist()} == {"boolean", "number", "words"}


def test_another_seed_gives_other_questions(file_store: Store) -> None:
    one, other = (
        {
            each["question"]
            for each in run_stage(file_store, "tasks", {**SMALL, "seed": seed}).table("items").to_pylist()
        }
        for seed in (0, 1)
    )
    assert one != other


def test_a_file_of_big_bench_hard_is_read_and_all_its_rows_are_used(file_store: Store, tmp_path: Path) -> None:
    settings = from_file(bbh(tmp_path, [*questions(), questions()[0]]), category="numbers")
    items = run_stage(file_store, "tasks", {**settings, "test": None}).table("items").to_pylist()
    assert len(items) == 12
    assert {each["rationale"] for each in items} == {"So the answer is Yes.", "So the answer is No."}


def test_a_row_may_bring_its_own_rationale(file_store: Store, tmp_path: Path) -> None:
    rows: list[Any] = [{**each, "rationale": "Look at it."} for each in questions()]
    items = run_stage(file_store, "tasks", from_file(bbh(tmp_path, rows))).table("items").to_pylist()
    assert {each["rationale"] for each in items} == {"Look at it."}


@pytest.mark.parametrize(
    ("rows", "message", "code"),
    [
        (questions(6), "mine has 6 different questions, and 3 seeds, 5 for validation and 4", ExitCode.BAD_SETTINGS),
        ([*questions(), row("Is it?", "perhaps")], "'perhaps' is no answer of kind yes_no", ExitCode.BAD_DATA),
        ([*questions(), row("Is 1 odd?", "No")], "the same question has the answers 'Yes' and 'No'", ExitCode.BAD_DATA),
        ([row(f"Is {n} odd?", "Yes") for n in range(12)], "every question has the answer 'Yes'", ExitCode.BAD_DATA),
        ([*questions(), {"question": "?", "target": "Yes"}], "no text in the field 'input'", ExitCode.BAD_DATA),
        ([*questions(), row("Is it?", 1)], "no text in the field 'target'", ExitCode.BAD_DATA),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    file_store: Store, tmp_path: Path, rows: list[Any], message: str, code: ExitCode
) -> None:
    with pytest.raises(StageError, match=message) as caught:
        run_stage(file_store, "tasks", from_file(bbh(tmp_path, rows)))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "either a rule or sources"),
        ({"rule": "chess"}, "there is no rule 'chess'"),
        ({"rule": "navigate", "kind": "number"}, "makes answers of kind yes_no"),
        ({"sources": [{"uri": "a.jsonl"}]}, "needs kind and about"),
        ({"sources": [{"uri": "a.jsonl"}], "kind": "labels", "about": "x"}, "labels go with kind labels"),
    ],
)
def test_a_task_that_cannot_be_is_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TasksSettings.model_validate({"tasks": {"mine": task}})
