"""The stage `pairs`: from mean scores to rows that DPO reads, and the three gates."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from tests.support import publish, run_stage


def scores(prompts: int = 10, instructions: int = 3, offset: float = -1.0) -> list[dict[str, Any]]:
    """Scores −1, 0.5 and 2 of each prompt's instructions with the default offset."""
    return [
        {
            "instruction_id": f"i-{prompt}-{number}",
            "prompt_id": f"p-{prompt}",
            "instruction": f"Do {number}.",
            "prompt": f"prompt {prompt}",
            "output": f"Do {number}.</instruction>",
            "n": 3,
            "score": offset + 1.5 * number,
            "stderr": 0.1,
            "noise": 0.001,
        }
        for prompt in range(prompts)
        for number in range(instructions)
    ]


def pairs(store: Store, rows: list[dict[str, Any]], reliability: float | None = 0.7, **settings: Any) -> Artifact:
    unknown = "all scores are equal" if reliability is None else None
    figures = {"within_prompt_reliability": {"mean": reliability, "unknown": unknown}}
    given = publish(store, "aggregate", tables={"rows": pa.Table.from_pylist(rows)}, figures=figures)
    return run_stage(store, "pairs", settings, {"scores": given})


def test_helpful_instructions_are_chosen_over_harmful_ones_of_their_prompt(file_store: Store) -> None:
    found = pairs(file_store, scores())
    rows = found.table().to_pylist()
    assert len(rows) == 20  # two helpful and one harmful instruction in each of ten prompts
    for row in rows:
        assert row["chosen_id"].split("-")[1] == row["rejected_id"].split("-")[1] == row["prompt_id"].split("-")[1]
        assert row["chosen_score"] > 0 > row["rejected_score"]
        assert row["gap"] == pytest.approx(row["chosen_score"] - row["rejected_score"])
        assert (row["prompt"], row["rejected"]) == (f"prompt {row['prompt_id'][2:]}", "Do 0.</instruction>")
    by_prompt = {
        row["prompt_id"]: {other["split"] for other in rows if other["prompt_id"] == row["prompt_id"]} for row in rows
    }
    assert all(len(sides) == 1 for sides in by_prompt.values())
    assert {row["split"] for row in rows} == {"train", "heldout"}
    assert found.manifest.figures["pairs"] == 20


def test_the_order_of_the_scores_does_not_matter(file_store: Store) -> None:
    there, back = pairs(file_store, scores()), pairs(file_store, scores()[::-1])
    assert sorted(map(str, there.table().to_pylist())) == sorted(map(str, back.table().to_pylist()))


def test_where_all_help_there_is_no_pair_and_the_reason_is_said(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"0 training pairs came out of 10 prompts.*10 prompts no harmful") as caught:
        pairs(file_store, scores(offset=1.0))
    assert caught.value.code == ExitCode.GATE
    assert len(pairs(file_store, scores(offset=1.0), policy="best_worst").table()) == 10


@pytest.mark.parametrize(("reliability", "shown"), [(0.3, "0.30"), (None, r"unknown \(all scores are equal\)")])
def test_unreliable_scores_make_no_pairs_where_that_is_asked(
    file_store: Store, reliability: float | None, shown: str
) -> None:
    with pytest.raises(StageError, match=f"reliability of an instruction's mean score is {shown}") as caught:
        pairs(file_store, scores(), reliability, least_reliability=0.5)
    assert caught.value.code == ExitCode.GATE
    assert pairs(file_store, scores(), reliability).manifest.figures["pairs"] == 20


def test_no_known_standard_error_is_said_with_what_helps(file_store: Store) -> None:
    rows = [{**row, "stderr": 0.1 if row["prompt_id"] == "p-0" else None} for row in scores()]
    assert pairs(file_store, rows, least_gap_se=1).manifest.figures["without"] == {"stderr_unknown": 9}
    with pytest.raises(StageError, match=r"9 prompts stderr unknown.*judge\.samples") as caught:
        pairs(file_store, rows, least_gap_se=1, least_pairs=20)
    assert caught.value.code == ExitCode.GATE


def both(store: Store, **settings: Any) -> Artifact:
    """Two responses, scores 1 and −1, to each of the instructions of `scores`."""
    rows = scores()
    answers = [
        {
            "response_id": f"r-{row['instruction_id']}-{sample}",
            "instruction_id": row["instruction_id"],
            "prompt_id": row["prompt_id"],
            "prompt": f"asks {row['instruction_id']}",
            "output": f"Answer {sample}.",
            "score": 1.0 - 2 * sample,
            "stderr": 0.1,
            "noise": 0.001,
        }
        for row in rows
        for sample in (0, 1)
    ]
    table = {"rows": pa.Table.from_pylist(answers)}
    inputs = {
        "scores": publish(store, "aggregate", tables={"rows": pa.Table.from_pylist(rows)}, figures={}),
        "response_scores": publish(store, "influence", tables=table),
        "responses": publish(store, "responses", tables=table),
    }
    return run_stage(store, "pairs", settings, inputs)


def test_responses_are_paired_on_the_text_that_asked_for_them(file_store: Store) -> None:
    found = both(file_store, optimise="responses")
    rows = found.table().to_pylist()
    assert len(rows) == 30
    for row in rows:
        instruction = row["chosen_id"].removeprefix("r-").rpartition("-")[0]
        assert (row["prompt"], row["chosen"], row["rejected"]) == (f"asks {instruction}", "Answer 0.", "Answer 1.")
        assert row["kind"] == "response"


def test_both_kinds_come_together_with_their_own_figures(file_store: Store) -> None:
    found = both(file_store, optimise="both")
    kinds = found.manifest.figures["kinds"]
    assert (kinds["instruction"]["pairs"], kinds["response"]["pairs"]) == (20, 30)
    assert found.table().num_rows == 50
    assert (found.manifest.figures["prompts"], kinds["response"]["prompts"]) == (40, 30)
