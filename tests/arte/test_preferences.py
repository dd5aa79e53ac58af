"""preferences: which questions and rationales are paired, and what happens where scores say nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.pairs.stage import ROWS as PAIRS
from tests.arte.inputs import question_table, questions, rationale_table, rationales
from tests.generation.inputs import REMOTE, remote
from tests.generation.server import Answer, says, serving
from tests.support import artifact_input, publish, run_stage


def paired(
    store: Store, score: Callable[[str, int, int], float | None], per_task: int = 8, **settings: Any
) -> Artifact:
    """`score` gets a rationale's task, the number of its question and its own."""
    rows = rationales(per_task)
    scores = []
    for row in rows:
        _, task, number, sample = row["response_id"].split("-")
        value = score(task, int(number), int(sample))
        scores.append({"response_id": row["response_id"], "score": value})
    inputs = {
        "scores": publish(
            store,
            "incontext",
            tables={
                "rows": pa.Table.from_pylist(scores, pa.schema([("response_id", pa.string()), ("score", pa.float64())]))
            },
        ),
        "rows": rationale_table(store, rows),
        "questions": question_table(store, questions(per_task)),
    }
    return run_stage(store, "preferences", settings, inputs)


def rising(_: str, number: int, sample: int) -> float:
    """Later questions are better, and so are later rationales."""
    return number / 10 + sample / 100


def test_questions_of_the_top_quarter_win_against_those_of_the_bottom_quarter(file_store: Store) -> None:
    rows = [row for row in paired(file_store, rising).table().to_pylist() if row["kind"] == "question"]
    assert len(rows) == 2 * 4  # two of eight at either end
    for row in rows:
        assert row["chosen_id"][-1] in "67" and row["rejected_id"][-1] in "01"
        assert row["chosen_id"].split("-")[1] == row["rejected_id"].split("-")[1] == row["task"]
        assert row["prompt"].startswith(f"Draft {row['task']}") and row["chosen"].endswith("</question>")
        assert row["gap"] == pytest.approx(row["chosen_score"] - row["rejected_score"]) and row["gap"] > 0


def test_the_best_rationale_wins_against_the_worst_under_the_naive_prompt(file_store: Store) -> None:
    rows = [row for row in paired(file_store, rising).table().to_pylist() if row["kind"] == "rationale"]
    assert len(rows) == 16
    assert {(row["chosen_id"][-1], row["rejected_id"][-1]) for row in rows} == {("1", "0")}
    assert all(row["prompt"].startswith("naive ") for row in rows)


def test_pairs_have_the_columns_of_every_pair_and_the_task(file_store: Store) -> None:
    found = paired(file_store, rising).table()
    assert found.column_names == [*PAIRS.names, "task"]
    assert set(found.select(["kind"]).column("kind").to_pylist()) == {"question", "rationale"}


@pytest.mark.parametrize(("optimise", "kinds"), [("questions", {"question"}), ("rationales", {"rationale"})])
def test_one_of_the_two_alone_is_a_setting(file_store: Store, optimise: str, kinds: set[str]) -> None:
    assert {row["kind"] for row in paired(file_store, rising, optimise=optimise).table().to_pylist()} == kinds


def test_no_more_pairs_than_asked_for_and_no_prompt_on_both_sides(file_store: Store) -> None:
    made = paired(file_store, rising, question_pairs=2, rationale_pairs=3, heldout_share=0.3)
    rows = made.table().to_pylist()
    assert Counter((row["task"], row["kind"]) for row in rows) == {
        ("even", "question"): 2, ("sum", "question"): 2, ("even", "rationale"): 3, ("sum", "rationale"): 3
    }  # fmt: skip
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["prompt_id"], set()).add(row["split"])
    assert all(len(each) == 1 for each in sides.values()) and Counter(row["split"] for row in rows)["heldout"] > 0
    assert made.manifest.figures["without"]["rationale_over_rationale_pairs"] == 10


def test_scores_that_are_all_alike_make_no_pair_and_the_reason_is_said(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"0 training pairs.*2 question all alike, 16 rationale all alike") as caught:
        paired(file_store, lambda *_: 0.5)
    assert caught.value.code == ExitCode.GATE


def test_a_task_without_scores_is_counted_and_the_other_one_used(file_store: Store) -> None:
    made = paired(file_store, lambda task, number, sample: None if task == "even" else rising(task, number, sample))
    figures = made.manifest.figures
    assert figures["tasks"]["even"] == {"question": 0, "rationale": 0} and figures["tasks"]["sum"]["question"] == 4
    assert figures["unscored"] == 16
    assert figures["without"] == {"question_fewer_than_two_scored": 1, "rationale_fewer_than_two_scored": 8}


def test_one_scored_rationale_makes_no_rationale_pair_but_counts_for_its_question(file_store: Store) -> None:
    rows = paired(file_store, lambda task, number, sample: number / 10 if sample else None).table().to_pylist()
    assert {row["kind"] for row in rows} == {"question"}


def by_seed(_: int, body: dict[str, Any]) -> Answer:
    return says(f"Score: {body['seed'] % 6}")


@pytest.mark.parametrize("signal", ["judge", "random"])
def test_the_scores_of_other_signals_make_pairs_of_the_same_drafts(file_store: Store, signal: str) -> None:
    drafts = rationale_table(file_store, rationales(8))
    with serving(by_seed) as server:
        judged = {"engine": remote(server.url), "samples": 1}
        settings, inputs = (judged, {"judge": REMOTE}) if signal == "judge" else ({}, {})
        scores = run_stage(file_store, signal, settings, {"rows": drafts, **inputs})
    given = {"scores": artifact_input(scores), "rows": drafts, "questions": question_table(file_store, questions(8))}
    made = run_stage(file_store, "preferences", {}, given).table().to_pylist()
    assert {row["kind"] for row in made} == {"question", "rationale"}
    assert all(row["chosen_score"] > row["rejected_score"] for row in made)
