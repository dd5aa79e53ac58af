"""winrate against judges that behave, and judges that do not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.evaluate.names import replica, split_replica
from stages.winrate.parsing import parse_verdict
from stages.winrate.settings import WinrateSettings
from tests.generation.server import Answer, refuses, says, serving
from tests.judging.inputs import judged_by, judged_inputs
from tests.support import run_stage

GOOD, BAD = "A fine answer.", "No."
STUDENTS = {"self-instruct": [[BAD]] * 6, "tailored": [[GOOD]] * 6}


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        ("A is better.\n[[A]]", "A", None),
        ("[[ B ]]", "B", None),
        ("I first thought [[A]].\nBut no: [[B]]", "B", None),
        ("Both are good.\n[[C]]", "C", None),
        ("**[[A]]**", "A", None),
        ("The second one, clearly.", None, "no_verdict"),
        ("[A]", None, "no_verdict"),
        ("[[D]]", None, "no_verdict"),
        ("[[A]] or [[B]]", None, "several_verdicts"),
        ("  \n", None, "empty"),
    ],
)
def test_a_verdict_is_read_or_refused_with_a_reason(text: str, verdict: str | None, reason: str | None) -> None:
    assert parse_verdict(text) == (verdict, reason)


@pytest.mark.parametrize(("name", "seed"), [("self-instruct", None), ("tailored", 3)])
def test_a_replicas_name_tells_its_student_and_seed(name: str, seed: int | None) -> None:
    assert split_replica(replica(name, seed)) == (name, seed)


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The answers of A and B in a request to the judge."""
    text = body["messages"][-1]["content"]
    first, second = text.split("[Answer of assistant A]")[1].split("[Answer of assistant B]")
    return first.strip(), second.split("\n\n")[0].strip()


def prefers(wanted: str) -> Any:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        first, second = shown(body)
        return says("[[C]]" if first == second else "[[A]]" if first == wanted else "[[B]]")

    return answer


def rows(store: Store, answer: Any, **settings: Any) -> list[dict[str, Any]]:
    with serving(answer) as server:
        made = run_stage(
            store,
            "winrate",
            judged_by(server.url, baseline="self-instruct", **settings),
            judged_inputs(store, STUDENTS),
        )
    found: list[dict[str, Any]] = made.table().to_pylist()
    return found


def test_each_comparison_is_judged_in_both_orders(file_store: Store) -> None:
    found = rows(file_store, prefers(GOOD))
    assert len(found) == 12
    assert Counter((row["first"], row["verdict"]) for row in found) == {
        ("student", "student"): 6,
        ("baseline", "student"): 6,
    }
    assert {(row["student"], row["student_length"], row["baseline_length"]) for row in found} == {
        ("tailored", len(GOOD), len(BAD))
    }


def test_a_judge_that_always_takes_the_first_is_seen_in_the_rows(file_store: Store) -> None:
    found = rows(file_store, lambda *_: says("[[A]]"))
    assert all(row["verdict"] == row["first"] for row in found)


def test_a_replica_meets_the_baselines_replica_of_its_own_seed(file_store: Store) -> None:
    students = {
        "base.seed-1": [["b1"]],
        "base.seed-2": [["b2"]],
        "tailored.seed-2": [["t2"]],
        "tailored.seed-1": [["t1"]],
    }
    seen: list[set[str]] = []

    def answer(_: int, body: dict[str, Any]) -> Answer:
        seen.append(set(shown(body)))
        return says("[[C]]")

    with serving(answer) as server:
        made = run_stage(file_store, "winrate", judged_by(server.url), judged_inputs(file_store, students))
    assert [pair for pair in ({"t1", "b1"}, {"t2", "b2"}) if seen.count(pair) == 2] == [{"t1", "b1"}, {"t2", "b2"}]
    assert {row["seed"] for row in made.table().to_pylist()} == {1, 2}


def test_prose_is_a_row_with_a_reason_and_no_verdict(file_store: Store) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return says("The first one reads better to me.") if number % 4 == 0 else prefers(GOOD)(number, body)

    found = rows(file_store, answer, least_parsed=0.1)
    unread = [row for row in found if row["verdict"] is None]
    assert len(unread) == 3 and {row["reason"] for row in unread} == {"no_verdict"}
    assert unread[0]["judgement"] == "The first one reads better to me."


def test_a_judgement_that_was_cut_off_is_called_truncated(file_store: Store) -> None:
    found = rows(file_store, lambda *_: says("Assistant A", finish="length"), least_parsed=0)
    assert {row["reason"] for row in found} == {"truncated"}


def test_a_judge_that_says_nothing_stops_the_run_by_name(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"0 of 12 outputs .* least_parsed asks for 50%: 12 empty") as caught:
        rows(file_store, lambda *_: says(""), gate_after=10)
    assert caught.value.code == ExitCode.GATE


def test_a_judge_that_refuses_for_ever_is_left_for_later_and_keeps_what_is_judged(file_store: Store) -> None:
    busy = lambda number, body: refuses(429, "busy") if number >= 4 else prefers(GOOD)(number, body)  # noqa: E731
    inputs = judged_inputs(file_store, STUDENTS)

    def run(answer: Any) -> int:
        with serving(answer) as server:
            run_stage(file_store, "winrate", judged_by(server.url, baseline="self-instruct", chunk_rows=2), inputs)
            return len(server.bodies)

    with pytest.raises(StageError, match="no answer in 1 attempts") as caught:
        run(busy)
    assert caught.value.code == ExitCode.STORE
    assert run(prefers(GOOD)) == 8  # the first chunk's four are not asked for again


def test_without_the_baseline_there_is_nothing_to_compare(file_store: Store) -> None:
    with pytest.raises(StageError, match="cannot be compared with 'self-reward'") as caught:
        run_stage(
            file_store, "winrate", judged_by("http://localhost:1/v1", baseline="self-reward"),
            judged_inputs(file_store, STUDENTS),
        )  # fmt: skip
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_template_that_names_what_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="answer_c"):
        WinrateSettings(template="{{ answer_c }}")
