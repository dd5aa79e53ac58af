"""mtbench: two turns, grades from 1 to 10, and judges that give none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.mtbench.parsing import parse_grade
from tests.generation.inputs import REMOTE
from tests.generation.server import Answer, says, serving
from tests.judging.inputs import judged_by, judged_inputs, replies
from tests.support import run_stage

STUDENTS = {"base": [["b one", "b two"]] * 3, "tailored": [["t one", "t two"]] * 3}


@pytest.mark.parametrize(
    ("text", "grade", "reason"),
    [
        ("Good.\n[[8]]", 8.0, None),
        ("[[ 7.5 ]]", 7.5, None),
        ("The form is [[5]]. So: [[3]]", 3.0, None),
        ("[[7/10]]", 7.0, None),
        ("Rating: [6]", 6.0, None),
        ("[[11/5]]", None, "another_scale"),
        ("[[11]]", None, "out_of_range"),
        ("[[0]]", None, "out_of_range"),
        ("[[-3]]", None, "out_of_range"),
        ("[[rating]]", None, "not_a_number"),
        ("[[8]] or rather [[good]]", None, "not_a_number"),
        ("An 8, I would say.", None, "no_grade"),
        ("11/5", None, "no_grade"),
        ("", None, "empty"),
    ],
)
def test_a_grade_is_read_or_refused_with_a_reason(text: str, grade: float | None, reason: str | None) -> None:
    assert parse_grade(text) == (grade, reason)


def asked(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"]
    return text


def test_each_turn_is_graded_with_those_before_it_in_sight(file_store: Store) -> None:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        return says("[[9]]" if "t two" in asked(body) else "[[4]]")

    with serving(answer) as server:
        made = run_stage(file_store, "mtbench", judged_by(server.url), judged_inputs(file_store, STUDENTS))
    found = Counter((row["student"], row["turn"], row["grade"]) for row in made.table().to_pylist())
    assert found == {("base", 1, 4.0): 3, ("base", 2, 4.0): 3, ("tailored", 1, 4.0): 3, ("tailored", 2, 9.0): 3}
    assert all("t one" in asked(body) for body in server.bodies if "t two" in asked(body))


def test_a_question_with_a_reference_shows_it_to_the_judge(file_store: Store) -> None:
    inputs = {"replies.base": replies(file_store, [["It is 4."]], reference="Four."), "judge": REMOTE}
    with serving(lambda *_: says("[[10]]")) as server:
        run_stage(file_store, "mtbench", judged_by(server.url), inputs)
    assert "[A correct answer, to compare with]\nFour." in asked(server.bodies[0])


def test_what_cannot_be_read_is_a_figure_and_never_a_zero(file_store: Store) -> None:
    texts = ("[[8]]", "[[11/5]]", "Very good indeed.")
    with serving(lambda number, _: says(texts[number % 3])) as server:
        made = run_stage(
            file_store, "mtbench", judged_by(server.url, least_parsed=0.2), judged_inputs(file_store, STUDENTS)
        )
    assert {row["grade"] for row in made.table().to_pylist()} == {8.0, None}
    assert made.manifest.figures == {
        "outputs": 12, "parsed": 4, "reasons": {"another_scale": 4, "no_grade": 4},
    }  # fmt: skip


def test_a_judge_that_only_talks_stops_the_run(file_store: Store) -> None:
    with serving(lambda *_: says("How interesting!")) as server, pytest.raises(StageError, match="no_grade") as caught:
        run_stage(file_store, "mtbench", judged_by(server.url, gate_after=4), judged_inputs(file_store, STUDENTS))
    assert caught.value.code == ExitCode.GATE
