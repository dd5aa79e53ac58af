"""The stage `curate`: what it keeps, why it drops the rest, and where it stops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from tests.support import publish, run_stage

SEEDS = ["Name three rivers of Europe.", "Explain what a prime number is to a child."]
PROMPTS, SAMPLES = 8, 3


def instruction(prompt: int, number: int, text: str | None, reason: str | None = None) -> dict[str, Any]:
    return {
        "instruction_id": f"i-{prompt}-{number}",
        "prompt_id": f"p-{prompt}",
        "prompt": "the prompt",
        "output": f"{text}</instruction>",
        "instruction": text,
        "reason": reason,
    }


def good() -> list[dict[str, Any]]:
    """Instructions that share no word."""
    return [
        instruction(prompt, number, " ".join(f"word{prompt}x{number}x{place}" for place in range(5)))
        for prompt in range(PROMPTS)
        for number in range(SAMPLES)
    ]


def curate(store: Store, rows: list[dict[str, Any]], **settings: Any) -> Artifact:
    inputs = {
        "instructions": publish(store, "instructions", tables={"rows": pa.Table.from_pylist(rows)}),
        "seeds": publish(store, "prepare", tables={"seeds": pa.table({"instruction": SEEDS})}),
    }
    return run_stage(store, "curate", settings, inputs)


def test_every_row_is_kept_or_dropped_with_a_reason(file_store: Store) -> None:
    bad = [
        instruction(90, 0, None, "no_closing_tag"),
        instruction(90, 1, "Why?"),
        instruction(90, 2, "Draw a picture of a bee in the wind."),
        instruction(90, 3, "Name three rivers in Europe."),
        instruction(90, 4, good()[0]["instruction"] + ", please"),
        instruction(90, 5, "word " * 100),
    ]
    found = curate(file_store, [*good(), *bad])
    kept, dropped = found.table().to_pylist(), found.table("dropped").to_pylist()
    assert [row["instruction_id"] for row in kept] == [row["instruction_id"] for row in good()]
    assert {row["instruction_id"]: row["reason"] for row in dropped} == {
        "i-90-0": "unparsed",
        "i-90-1": "too_short",
        "i-90-2": "unsuitable_word",
        "i-90-3": "duplicate",
        "i-90-4": "duplicate",
        "i-90-5": "too_long",
    }
    nearest = {row["instruction_id"]: row["detail"] for row in dropped}
    assert nearest["i-90-3"] == SEEDS[0] and nearest["i-90-4"] == good()[0]["instruction"]
    assert found.manifest.figures["dropped"] == dict(Counter(row["reason"] for row in dropped))
    assert found.manifest.ledger.rows_in == len(good()) + len(bad)


def test_prompts_are_never_split_between_warm_up_and_candidates(file_store: Store) -> None:
    rows = curate(file_store, good(), warmup_rows=9).table().to_pylist()
    sides = {row["prompt_id"]: set() for row in rows}
    for row in rows:
        sides[row["prompt_id"]].add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(row["split"] for row in rows) == {"warmup": 9, "candidate": len(rows) - 9}


def test_rows_for_the_student_have_no_other_side(file_store: Store) -> None:
    found = curate(file_store, good(), role="train", most_rows=7)
    rows = found.table().to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 6  # whole prompts of three
    assert found.manifest.figures["dropped"] == {"over_most_rows": len(good()) - 6}
    assert len(found.table("dropped")) == len(good()) - 6


def test_too_few_rows_stop_the_run_with_the_figures(file_store: Store) -> None:
    rows = [instruction(0, number, None, "no_closing_tag") for number in range(9)]
    with pytest.raises(
        StageError, match=r"1 of 10 instructions are kept, and 2 are asked for \(9 unparsed\)"
    ) as caught:
        curate(file_store, [*rows, good()[0]])
    assert caught.value.code == ExitCode.GATE
