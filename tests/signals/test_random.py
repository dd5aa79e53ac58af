"""The stage `random`: scores that depend on nothing but ids and seed, or another signal's scores shuffled."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.tables import make_table
from stages.contract.task import ArtifactInput
from stages.signals.rows import COLUMNS, scored
from tests.signals.rows import SCORED, candidates, responses
from tests.support import publish, run_stage


def scores_of(found: Artifact) -> dict[str, float]:
    return {row["response_id"]: row["score"] for row in found.table().to_pylist()}


def signal(store: Store, only: int | None = None) -> ArtifactInput:
    """Scores 0, 1, 2, … of the candidates, with their noise; the first has none."""
    listed = [row for row in candidates() if row["response_id"] in SCORED]
    rows = [
        scored(row, "first_order", None if number == 0 else float(number), noise=0.5, tie=number == 1)
        for number, row in enumerate(listed[:only])
    ]
    return publish(store, "influence", tables={"rows": make_table(rows, COLUMNS)})


def test_equal_seeds_give_equal_scores_in_any_order(file_store: Store) -> None:
    there = run_stage(file_store, "random", {}, {"rows": responses(file_store)})
    back = run_stage(file_store, "random", {}, {"rows": responses(file_store, candidates()[::-1])})
    other = run_stage(file_store, "random", {"seed": 1}, {"rows": responses(file_store)})
    assert set(scores_of(there)) == set(SCORED)
    assert scores_of(there) == scores_of(back) != scores_of(other)
    assert there.manifest.figures == {"method": "normal"}


def test_shuffled_scores_keep_what_belongs_to_one_instruction_together(file_store: Store) -> None:
    inputs = {"rows": responses(file_store), "scores": signal(file_store)}
    found = run_stage(file_store, "random", {}, inputs)
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for row in found.table().to_pylist():
        assert row["noise"] == 0.5 and row["tie"] == (row["score"] == 1)
        groups[row["instruction_id"]].append(row["score"])
    # Instruction k of the original had 2k and 2k + 1; of the first only 1 was scored.
    assert sorted(map(sorted, groups.values())) == [[1, 1], *([2.0 * k, 2.0 * k + 1] for k in range(1, 6))]
    assert found.manifest.figures == {"method": "shuffled"}
    assert scores_of(found) != scores_of(run_stage(file_store, "random", {"seed": 3}, inputs))


def test_the_scores_of_fewer_candidates_are_handed_out_in_turn(file_store: Store) -> None:
    found = run_stage(file_store, "random", {}, {"rows": responses(file_store), "scores": signal(file_store, 4)})
    assert set(scores_of(found)) == set(SCORED)
    assert set(scores_of(found).values()) == {1.0, 2.0, 3.0}


def drafts(questions: int = 60, ways: int = 4) -> list[dict[str, Any]]:
    """Rationales of two tasks, as ARTE scores them: way k scores k in one task and 10 + k in the other."""
    return [
        {
            "response_id": f"{task}-{question}-{way}",
            "instruction_id": f"{task}-{question}",
            "prompt_id": f"{task}-{question}",
            "task": task,
            "way": str(way),
            "usable": True,
            "split": "candidate",
            "score": float(first + way),
        }
        for task, first in (("even", 0), ("sum", 10))
        for question in range(questions)
        for way in range(ways)
    ]


def shuffled(store: Store, rows: list[dict[str, Any]], given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    more = {"stderr": None, "noise": None, "tie": False}
    scores = publish(store, "incontext", tables={"rows": pa.Table.from_pylist([{**row, **more} for row in given])})
    found = run_stage(store, "random", {}, {"rows": responses(store, rows), "scores": scores}).table().to_pylist()
    return [{**was, **row} for was, row in zip(rows, found, strict=True)]


def test_a_shuffled_score_says_nothing_of_the_way_that_a_rationale_reasons(file_store: Store) -> None:
    rows = [row for row in shuffled(file_store, drafts(), drafts()) if row["task"] == "even"]
    for way in "0123":
        scores = Counter(row["score"] for row in rows if row["way"] == way)
        assert all(5 <= scores[score] <= 25 for score in range(4))  # 15 each by chance, 60 of one before


def test_each_task_keeps_its_scores(file_store: Store) -> None:
    rows = shuffled(file_store, drafts(), drafts())
    for task, first in (("even", 0), ("sum", 10)):
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for row in rows:
            if row["task"] == task:
                groups[row["instruction_id"]].append(row["score"])
        assert all(sorted(each) == [first, first + 1, first + 2, first + 3] for each in groups.values())


def test_a_task_without_a_score_gets_none_of_another_one(file_store: Store) -> None:
    rows = shuffled(file_store, drafts(), [row for row in drafts() if row["task"] == "even"])
    reasons = {row["reason"] for row in rows if row["task"] == "sum" and row["score"] is None}
    assert reasons == {"no score of its task to shuffle"}
    assert all(row["score"] is not None for row in rows if row["task"] == "even")


def test_nothing_to_shuffle_is_bad_data(file_store: Store) -> None:
    with pytest.raises(StageError, match="there is no score to shuffle") as caught:
        run_stage(file_store, "random", {}, {"rows": responses(file_store), "scores": signal(file_store, 1)})
    assert caught.value.code == ExitCode.BAD_DATA


def test_no_candidate_is_bad_data(file_store: Store) -> None:
    rows = [row for row in candidates() if row["split"] == "warmup"]
    with pytest.raises(StageError, match="no candidate to score"):
        run_stage(file_store, "random", {}, {"rows": responses(file_store, rows)})


def test_aggregate_reads_any_signal(file_store: Store) -> None:
    made = run_stage(file_store, "random", {}, {"rows": responses(file_store)})
    texts = [
        {"instruction_id": name, "prompt": "P", "output": "O", "instruction": "I"}
        for name in {row["instruction_id"] for row in candidates()}
    ]
    scores = publish(file_store, "random", tables={"rows": made.table()})
    instructions = publish(file_store, "curate", tables={"rows": pa.Table.from_pylist(texts)})
    found = run_stage(file_store, "aggregate", {}, {"scores": scores, "instructions": instructions})
    assert len(found.table()) == 6
