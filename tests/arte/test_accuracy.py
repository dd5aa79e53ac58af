"""accuracy: exact match by task and category, each task with the same weight, and paired differences."""

from __future__ import annotations

from typing import Any

import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import StageError
from stages.contract.store import Store
from tests.arte.inputs import answered, tasks
from tests.support import run_stage


def measured(store: Store, **students: Any) -> Artifact:
    answers = {f"answers.{name}": answered(store, right, role="test", shots=(0, 3)) for name, right in students.items()}
    return run_stage(store, "accuracy", {}, {"tasks": tasks(store), **answers})


def found(made: Artifact, student: str, shots: int, name: str) -> dict[str, Any]:
    rows = [
        row
        for row in made.table("levels").to_pylist()
        if (row["student"], row["shots"], row["name"]) == (student, shots, name)
    ]
    assert len(rows) == 1
    return rows[0]


def test_accuracy_by_task_category_and_over_all_with_what_could_not_be_parsed(file_store: Store) -> None:
    def base(item: str, shots: int) -> bool | None:
        if item.startswith("sum"):
            return None if shots == 0 else False
        return item.endswith(("10", "11")) or shots == 3

    made = measured(file_store, base=base, tailored=lambda *_: True)
    assert found(made, "base", 0, "even")["accuracy"] == pytest.approx(2 / 5)
    assert found(made, "base", 0, "logic")["accuracy"] == pytest.approx(2 / 5)
    assert found(made, "base", 0, "sum") | {"unparsed": 5, "accuracy": 0.0} == found(made, "base", 0, "sum")
    overall = found(made, "base", 0, "all")
    assert overall["accuracy"] == pytest.approx(1 / 5) and overall["questions"] == 10 and overall["unparsed"] == 5
    assert overall["low"] < overall["accuracy"] < overall["high"]
    assert found(made, "base", 3, "all")["accuracy"] == pytest.approx(1 / 2)
    # Ten right answers are no proof.
    assert found(made, "tailored", 0, "all")["low"] == pytest.approx(0.025 ** (1 / 10))


def test_a_difference_is_paired_by_question(file_store: Store) -> None:
    def odd(item: str, _: int) -> bool:
        return int(item[-2:]) % 2 == 1

    made = measured(file_store, one=odd, same=odd, all=lambda *_: True)
    differences = {
        (each["first"], each["second"]): each for each in made.manifest.figures["differences"] if each["shots"] == 0
    }
    same = differences["one", "same"]
    assert same["value"] == 0 and same["low"] == -same["high"] == pytest.approx(0.025 ** (1 / 10) - 1)
    wide = differences["all", "one"]
    assert wide["value"] == pytest.approx(3 / 5) and 0 < wide["low"] < wide["value"] < wide["high"] <= 1


def test_a_student_of_several_seeds_is_one_student_and_its_seeds_are_in_its_interval(file_store: Store) -> None:
    def first(item: str, _: int) -> bool:
        return int(item[-2:]) % 2 == 1

    def second(item: str, shots: int) -> bool:
        return not first(item, shots)

    alone = measured(file_store, base=lambda *_: False, tailored=first)
    made = measured(file_store, base=lambda *_: False, **{"tailored.seed-1": first, "tailored.seed-2": second})
    one, both = (found(each, "tailored", 0, "all") for each in (alone, made))
    assert both["seeds"] == 2 and both["questions"] == one["questions"] == 10
    assert both["accuracy"] == pytest.approx((2 / 5 + 3 / 5) / 2)
    assert both["high"] - both["low"] > one["high"] - one["low"]
    assert both["low"] >= 0 and both["high"] <= 1  # two seeds bound nothing, but a share is one
    (difference,) = [each for each in made.manifest.figures["differences"] if each["shots"] == 0]
    assert (difference["first"], difference["second"]) == ("base", "tailored")


def test_students_that_answered_other_questions_are_not_compared(file_store: Store) -> None:
    answers = {
        "answers.one": answered(file_store, lambda *_: True, role="test", shots=(0,)),
        "answers.two": answered(file_store, lambda *_: True, role="validation", shots=(0,)),
    }
    with pytest.raises(StageError, match="one and two answered different questions after 0 examples"):
        run_stage(file_store, "accuracy", {}, {"tasks": tasks(file_store), **answers})
