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
    figures = {"within_prompt_reliability": {"mean": reliability}}
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


@pytest.mark.parametrize("reliability", [0.3, None])
def test_unreliable_scores_make_no_pairs_where_that_is_asked(file_store: Store, reliability: float | None) -> None:
    with pytest.raises(StageError, match="reliability of an instruction's mean score") as caught:
        pairs(file_store, scores(), reliability, least_reliability=0.5)
    assert caught.value.code == ExitCode.GATE
    assert pairs(file_store, scores(), reliability).manifest.figures["pairs"] == 20
