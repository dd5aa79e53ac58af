"""Candidates that cannot be scored, before any work or in the middle of it: named, and no other score moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.influence.select import audit_order
from tests.influence.stages import NO_GRADIENT, NO_LOSS, candidates, sick_checkpoint, stage_inputs
from tests.support import artifact_input, run_stage

SETTINGS = {"max_tokens": 128, "gradient_groups": 4, "corrected_groups": 2}
AUDIT = {**SETTINGS, "size": 6, "threshold": -1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sick_checkpoint(tmp_path_factory.mktemp("checkpoint") / "student")


def good() -> list[dict[str, Any]]:
    """Two prompts of two instructions, each with one response and of the usual kind."""
    return [row for row in candidates()[:-1] if row["response_id"] in {"r-0-0-0", "r-0-1-0", "r-1-0-0", "r-1-1-0"}]


def bad(name: str, **changes: str) -> dict[str, Any]:
    return {**good()[0], "response_id": name, "instruction_id": f"i-{name}", **changes}


def audit(store: Store, folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Artifact:
    return run_stage(store, "audit", {**AUDIT, **settings}, stage_inputs(store, folder, rows=rows))


def test_a_candidate_without_a_finite_score_leaves_the_audit_its_noise(file_store: Store, folder: Path) -> None:
    rows = [bad("sick", response=f"A {NO_GRADIENT} is."), bad("sicker", response=f"A {NO_LOSS} is."), *good()]
    found = audit(file_store, folder, rows)
    sick, sicker, *others = found.table().to_pylist()
    assert sick["exact"] is sick["first_order"] is sicker["exact"] is None
    assert all(row["exact"] is not None for row in others)
    figures = found.manifest.figures
    assert all(0 < figures["noise"][method] < 1 for method in ("exact", "first_order", "corrected"))
    assert (found.manifest.ledger.rows_in, found.manifest.ledger.rows_kept) == (6, 4)
    inputs = {**stage_inputs(file_store, folder, rows=rows), "audit": artifact_input(found)}
    scored = run_stage(file_store, "influence", {**SETTINGS, "method": "two_stage"}, inputs).table().to_pylist()
    assert {row["response_id"]: row["noise"] for row in scored if row["score"] is None} == {
        "sick": None,
        "sicker": None,
    }
    assert all(row["noise"] == figures["noise"][row["method"]] for row in scored if row["score"] is not None)


def test_the_audit_passes_over_candidates_that_cannot_be_scored(file_store: Store, folder: Path) -> None:
    rows = good()
    first, second, *others = audit_order(row["response_id"] for row in rows)
    given = [{**row, "response": " "} if row["response_id"] in {first, second} else row for row in rows]
    found = audit(file_store, folder, given, size=2)
    assert {row["response_id"] for row in found.table().to_pylist()} == set(others)
    assert (found.manifest.ledger.rows_in, found.manifest.ledger.rows_kept) == (4, 2)


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
