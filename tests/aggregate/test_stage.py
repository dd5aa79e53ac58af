"""The stage `aggregate`: means over an instruction's responses, with their texts and the figures that pairs rest on."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from tests.support import publish, run_stage

SCORES = {  # prompt → instruction → scores of its responses
    "p-0": {"i-0": [0.1, 0.3, 0.2], "i-1": [-0.4, -0.2, -0.3]},
    "p-1": {"i-2": [0.5, 0.1], "i-3": [0.0, 0.2, None]},
    "p-2": {"i-4": [0.2, 0.4, 0.3], "i-5": [None, None]},
}


def aggregate(store: Store, scores: dict[str, dict[str, list[float | None]]], noise: float | None = 0.01) -> Artifact:
    rows: list[dict[str, Any]] = [
        {"prompt_id": prompt, "instruction_id": instruction, "score": score, "noise": None if score is None else noise}
        for prompt, instructions in scores.items()
        for instruction, values in instructions.items()
        for score in values
    ]
    texts = [
        {
            "instruction_id": name,
            "prompt_id": prompt,
            "prompt": "P",
            "output": f"<{name}>",
            "instruction": f"Do {name}.",
            "split": "candidate",
        }
        for prompt, instructions in scores.items()
        for name in instructions
    ]
    schema = pa.schema(
        [("prompt_id", "string"), ("instruction_id", "string"), ("score", "double"), ("noise", "double")]
    )
    inputs = {
        "scores": publish(store, "influence", tables={"rows": pa.Table.from_pylist(rows, schema=schema)}),
        "instructions": publish(store, "curate", tables={"rows": pa.Table.from_pylist(texts[::-1])}),
    }
    return run_stage(store, "aggregate", {}, inputs)


def test_an_instruction_has_the_mean_of_its_scored_responses(file_store: Store) -> None:
    found = aggregate(file_store, SCORES)
    rows = {row["instruction_id"]: row for row in found.table().to_pylist()}
    assert {name: row["n"] for name, row in rows.items() if row["score"] is not None} == {
        "i-0": 3,
        "i-1": 3,
        "i-2": 2,
        "i-3": 2,
        "i-4": 3,
    }
    assert rows["i-0"]["score"] == pytest.approx(0.2)
    assert rows["i-3"]["score"] == pytest.approx(0.1)
    assert rows["i-0"]["stderr"] > 0
    assert (rows["i-4"]["instruction"], rows["i-4"]["output"], rows["i-4"]["prompt"]) == ("Do i-4.", "<i-4>", "P")
    figures = found.manifest.figures
    assert figures["instructions"] == 5
    assert 0 <= figures["within_prompt_reliability"]["mean"] <= 1
    components = {row["component"]: row for row in found.table("components").to_pylist()}
    assert set(components) == {"prompt", "instruction", "response"}
    assert sum(row["share"] for row in components.values()) == pytest.approx(1)


def test_one_response_an_instruction_has_no_reliability(file_store: Store) -> None:
    single = {prompt: {name: values[:1] for name, values in rows.items()} for prompt, rows in SCORES.items()}
    assert aggregate(file_store, single).manifest.figures["within_prompt_reliability"]["mean"] is None


def test_no_score_at_all_is_bad_data(file_store: Store) -> None:
    with pytest.raises(StageError) as caught:
        aggregate(file_store, {"p-0": {"i-0": [None], "i-1": [None]}})
    assert caught.value.code == ExitCode.BAD_DATA
