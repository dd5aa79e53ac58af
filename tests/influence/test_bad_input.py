"""Candidates that cannot be scored, before any work or in the middle of it: named, and no other score moves."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.influence.examples import Example
from stages.influence.paper import paper_score
from stages.influence.select import audit_order
from stages.influence.state import AdamState
from tests.influence.builders import llama
from tests.influence.stages import NO_EMBEDDING, NO_GRADIENT, NO_LOSS, candidates, sick_checkpoint, stage_inputs
from tests.support import artifact_input, run_stage

SETTINGS = {"max_tokens": 128, "gradient_groups": 4, "corrected_groups": 2}
AUDIT = {**SETTINGS, "size": 8, "threshold": -1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sick_checkpoint(tmp_path_factory.mktemp("checkpoint") / "student")


def good() -> list[dict[str, Any]]:
    """Two prompts of three instructions, each with one response and of the usual kind."""
    return [row for row in candidates()[:-1] if row["prompt_id"] != "p-2" and row["response_id"].endswith("-0")]


def bad(name: str, **changes: str) -> dict[str, Any]:
    return {**good()[0], "response_id": name, "instruction_id": f"i-{name}", **changes}


def audit(store: Store, folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Artifact:
    return run_stage(store, "audit", {**AUDIT, **settings}, stage_inputs(store, folder, rows=rows))


BAD: list[tuple[dict[str, Any], str]] = [
    (bad("empty", response="  \n"), "empty_response"),
    (bad("special", response="<|im_end|>\n<|im_end|>"), "only_special_tokens"),
    (bad("long", instruction="word " * 200), "no_response_token_left"),
    (bad("unknown", response=f"A {NO_EMBEDDING} is."), "outside_vocabulary"),
    (bad("loss", response=f"A {NO_LOSS} is."), "non_finite_loss"),
    (bad("gradient", response=f"A {NO_GRADIENT} is."), "non_finite_gradient"),
]


@pytest.mark.parametrize("method", ["exact", "first_order", "two_stage"])
def test_candidates_that_cannot_be_scored_are_named_and_move_no_other_score(
    method: str, file_store: Store, folder: Path
) -> None:
    audited = artifact_input(audit(file_store, folder, good(), size=3))

    def influence(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        inputs = {**stage_inputs(file_store, folder, rows=rows), "audit": audited}
        found = run_stage(file_store, "influence", {**SETTINGS, "method": method}, inputs).table().to_pylist()
        return {row["response_id"]: row for row in found}

    expected = influence(good())
    assert all(row["score"] is not None and row["reason"] is None for row in expected.values())
    assert ("corrected" in {row["method"] for row in expected.values()}) == (method == "two_stage")
    mixed = [row for pair in zip(good(), (row for row, _ in BAD), strict=True) for row in pair]
    found = influence(mixed)
    for row, reason in BAD:
        each = found.pop(row["response_id"])
        if reason == "non_finite_gradient" and method == "exact":
            reason = "non_finite_reference_loss"  # where such a step leads
        assert each["score"] is None and not each["tie"] and each["noise"] is None
        assert each["reason"].partition(":")[0] == reason
    assert found == expected


def test_a_candidate_without_a_finite_score_leaves_the_audit_its_noise(file_store: Store, folder: Path) -> None:
    rows = [bad("sick", response=f"A {NO_GRADIENT} is."), bad("sicker", response=f"A {NO_LOSS} is."), *good()]
    found = audit(file_store, folder, rows)
    sick, sicker, *others = found.table().to_pylist()
    assert sick["exact"] is sick["first_order"] is sicker["exact"] is None
    assert all(row["exact"] is not None for row in others)
    figures = found.manifest.figures
    assert all(0 < figures["noise"][method] < 1 for method in ("exact", "first_order", "corrected"))
    assert (found.manifest.ledger.rows_in, found.manifest.ledger.rows_kept) == (8, 6)
    inputs = {**stage_inputs(file_store, folder, rows=rows), "audit": artifact_input(found)}
    scored = run_stage(file_store, "influence", {**SETTINGS, "method": "two_stage"}, inputs).table().to_pylist()
    assert {row["response_id"]: row["noise"] for row in scored if row["score"] is None} == {
        "sick": None,
        "sicker": None,
    }
    assert all(row["noise"] >= figures["noise"][row["method"]] > 0 for row in scored if row["score"] is not None)


def test_the_audit_passes_over_candidates_that_cannot_be_scored(file_store: Store, folder: Path) -> None:
    rows = good()
    first, second, *others = audit_order(row["response_id"] for row in rows)
    given = [{**row, "response": " "} if row["response_id"] in {first, second} else row for row in rows]
    found = audit(file_store, folder, given, size=4)
    assert {row["response_id"] for row in found.table().to_pylist()} == set(others)
    assert (found.manifest.ledger.rows_in, found.manifest.ledger.rows_kept) == (6, 4)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (" ", "audit: rows: no candidate can be scored: 2 empty_response"),
        (f"A {NO_LOSS} is.", "audit: rows: none of the 2 sampled candidates has a finite score"),
    ],
)
def test_an_audit_of_nothing_that_can_be_scored_is_bad_data(
    file_store: Store, folder: Path, response: str, text: str
) -> None:
    with pytest.raises(StageError) as caught:
        audit(file_store, folder, [bad("one", response=response), bad("other", response=response)])
    assert caught.value.code == ExitCode.BAD_DATA and text in str(caught.value)


def test_the_released_arithmetic_refuses_rows_of_which_no_response_is_left(
    state: AdamState,
) -> None:
    cut = Example((5, 9, 11, 2, 3), 4)
    score = partial(paper_score, llama(), state, dtype=torch.float32, batch_size=2)
    with pytest.raises(StageError, match="candidate: no response token is within the first 4 tokens"):
        score(cut, [Example((5, 9, 11), 1)], pad_to=4)
    with pytest.raises(StageError, match="reference rows at indices 2 to 3: no response token"):
        score(Example((5, 9), 1), [Example((5, 9, 11), 1), cut, cut, cut], pad_to=4)
    # One of a batch is no more than left out of its mean, as there.
    assert math.isfinite(score(Example((5, 9), 1), [Example((5, 9, 11), 1), cut], pad_to=4))
