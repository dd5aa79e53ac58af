"""Inputs of ARTE's stages: two small tasks, and answers as a test tells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from stages.answers.stage import SCHEMA as ANSWERS
from stages.contract.store import Store
from stages.contract.tables import make_table
from stages.contract.task import ArtifactInput
from stages.irt.stage import ROWS as PREFERENCE
from stages.rationales.stage import SCHEMA as RATIONALES
from stages.tasks.stage import ITEMS, SEEDS, TASKS
from tests.generation.inputs import remote
from tests.support import publish

TASK_NAMES = ("even", "sum")
CATEGORIES = {"even": "logic", "sum": "arithmetic"}
Row = dict[str, Any]


def items(seeds: int = 4, validation: int = 6, test: int = 5) -> list[Row]:
    """Is N even? (yes_no) and What is N + 1? (number)."""
    roles = [("seed", seeds), ("validation", validation), ("test", test)]
    numbers = list(enumerate(role for role, count in roles for _ in range(count)))
    return [
        {
            "item_id": f"{task}-{role}-{number:02}",
            "task": task,
            "role": role,
            "question": f"Is {number} even?" if task == "even" else f"What is {number} + 1?",
            "answer": ("No" if number % 2 else "Yes") if task == "even" else str(number + 1),
            "rationale": f"Look at {number}. So the answer is known.",
        }
        for task in TASK_NAMES
        for number, role in numbers
    ]


def tasks(store: Store, **counts: int) -> ArtifactInput:
    return publish(store, "tasks", tables=task_tables(**counts))


def task_tables(**counts: int) -> dict[str, pa.Table]:
    """What `tasks` would publish."""
    made = items(**counts)
    about = [
        {"task": "even", "category": "logic", "kind": "yes_no", "about": "even numbers", "labels": []},
        {"task": "sum", "category": "arithmetic", "kind": "number", "about": "sums", "labels": []},
    ]
    seeds = [
        {"seed_id": each["item_id"], "instruction": each["question"], "response": each["answer"]}
        for each in made
        if each["role"] == "seed"
    ]
    return {"items": make_table(made, ITEMS), "tasks": make_table(about, TASKS), "seeds": make_table(seeds, SEEDS)}


def answered(
    store: Store, right: Callable[[str, int], bool | None], *, role: str, shots: tuple[int, ...]
) -> ArtifactInput:
    """One model's answers: `right` says of an item's id and a number of shots whether they are; None: unparsed."""
    rows = [
        {
            "item_id": each["item_id"],
            "task": each["task"],
            "shots": count,
            "output": "",
            "answer": None if right(each["item_id"], count) is None else "x",
            "correct": bool(right(each["item_id"], count)),
            "finish_reason": "stop",
            "output_tokens": 1,
        }
        for each in items()
        if each["role"] == role
        for count in shots
    ]
    return publish(store, "answers", tables={"rows": make_table(rows, ANSWERS)})


def questions(per_task: int = 4) -> list[Row]:
    """Selected questions."""
    return [
        {
            "instruction_id": f"q-{task}-{number}",
            "prompt_id": f"p-{task}-{number // 2}",
            "prompt": f"Draft {task} {number // 2}.",
            "output": f"{task} {number}?</question>",
            "instruction": f"{task} {number}?",
            "split": "candidate",
            "task": task,
            "teacher": "t",
        }
        for task in TASK_NAMES
        for number in range(per_task)
    ]


def rationales(per_task: int = 4, ways: int = 2) -> list[Row]:
    """Usable rationales of `questions`."""
    return [
        {
            "response_id": f"r-{question['instruction_id'][2:]}-{sample}",
            "instruction_id": question["instruction_id"],
            "prompt_id": question["prompt_id"],
            "sample": sample,
            "sampling_seed": sample,
            "instruction": question["instruction"],
            "response": f"Way {sample}. So the answer is 1.",
            "finish_reason": "stop",
            "usable": True,
            "reason": None,
            "prompt_tokens": 5,
            "output_tokens": 5,
            "split": "candidate",
            "teacher": "t",
            "task": question["task"],
            "way": f"way {sample}",
            "answer": "1",
            "prompt": f"naive {question['instruction']}",
            "output": f"Way {sample}. So the answer is 1.",
        }
        for question in questions(per_task)
        for sample in range(ways)
    ]


def rationale_table(store: Store, rows: list[Row]) -> ArtifactInput:
    return publish(store, "rationales", tables={"rows": rationale_rows(rows)})


def rationale_rows(rows: list[Row] | None = None) -> pa.Table:
    return make_table(rationales() if rows is None else rows, RATIONALES)


def question_table(store: Store, rows: list[Row]) -> ArtifactInput:
    return publish(store, "select", tables={"rows": pa.Table.from_pylist(rows)})


def preference(store: Store, tasks: tuple[str, ...] = TASK_NAMES, unchosen: int = 1) -> ArtifactInput:
    """All validation questions of some tasks but the first `unchosen`."""
    return publish(store, "irt", tables={"rows": preference_rows(tasks, unchosen)})


def preference_rows(tasks: tuple[str, ...] = TASK_NAMES, unchosen: int = 1) -> pa.Table:
    rows = [
        {
            **{name: each[name] for name in ("item_id", "task", "question", "answer")},
            "discrimination": 1.0,
            "difficulty": 0.0,
            "share_right": 0.5,
            "chosen": number >= unchosen,
            "filler": False,
        }
        for task in tasks
        for number, each in enumerate(row for row in items() if row["task"] == task and row["role"] == "validation")
    ]
    return make_table(rows, PREFERENCE)


def served(url: str) -> Row:
    return {"engine": {**remote(url), "concurrency": 1}}


def last_user(body: Row) -> str:
    """What a server was asked last."""
    return str(next(each["content"] for each in reversed(body["messages"]) if each["role"] == "user"))
