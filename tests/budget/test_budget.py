"""Equal rows, tokens or device seconds: what each branch keeps, and what cannot be matched."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.budget.afford import Spent, equal_rows, equal_seconds, equal_tokens
from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.ledger import Meter
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from stages.training.rows import usable_rows
from tests.arte.inputs import rationale_table, rationales
from tests.support import publish, run_stage

TOKENS = {"tailored": [10, 10, 10, 10], "self-instruct": [5, 30, 5, 30, 5, 30]}


def test_equal_rows_are_those_of_the_smallest_branch() -> None:
    assert equal_rows(TOKENS).rows == {"tailored": 4, "self-instruct": 4}


def test_equal_tokens_never_exceed_the_smallest_branch() -> None:
    found = equal_tokens(TOKENS)
    assert (found.amount, found.rows) == (40, {"tailored": 4, "self-instruct": 3})  # 5 + 30 + 5


def test_equal_seconds_count_what_a_branch_spent_before_its_data() -> None:
    spent = {"tailored": Spent(before=60, final=20, rows=10), "self-instruct": Spent(before=0, final=70, rows=35)}
    found = equal_seconds(spent)
    assert (found.amount, found.rows) == (70, {"tailored": 5, "self-instruct": 35})


def test_probes_that_cost_more_than_all_of_the_other_branch_leave_no_row() -> None:
    spent = {"tailored": Spent(before=600, final=20, rows=10), "self-instruct": Spent(before=0, final=20, rows=10)}
    assert equal_seconds(spent).rows == {"tailored": 0, "self-instruct": 10}


@pytest.mark.parametrize("rows", range(1, 60))
def test_the_branch_that_sets_the_budget_keeps_all_of_its_rows(rows: int) -> None:
    spent = {"a": Spent(before=0.1, final=0.7 * rows, rows=rows), "b": Spent(before=5.0, final=1e4, rows=7)}
    assert equal_seconds(spent).rows["a"] == rows


def responses(store: Store, rows: int, unusable: int = 1, seconds: float = 0.0, tokens: int = 10) -> ArtifactInput:
    listed = [
        {"response_id": f"r-{number:03}", "usable": number >= unusable, "output_tokens": tokens, "response": "Yes."}
        for number in reversed(range(rows + unusable))
    ]
    return publish(store, "responses", tables={"rows": pa.Table.from_pylist(listed)}, meter=spending(seconds))


def spending(seconds: float) -> Meter:
    meter = Meter()
    meter._device_seconds = seconds  # a clock would make the test as long as what it claims
    return meter


def cut(store: Store, own: ArtifactInput, other: ArtifactInput, match: str, **more: Any) -> Artifact:
    inputs = {"own.tailored": own, "branch.tailored": own, "branch.self-instruct": other}
    return run_stage(store, "budget", {"match": match}, {**inputs, **more})


def test_a_branch_keeps_its_first_usable_rows_by_id(file_store: Store) -> None:
    found = cut(file_store, responses(file_store, 6), responses(file_store, 4), "rows")
    assert found.table()["response_id"].to_pylist() == ["r-001", "r-002", "r-003", "r-004"]
    assert found.manifest.figures["rows"] == {"tailored": 4, "self-instruct": 4}
    assert found.manifest.figures["usable"] == {"tailored": 6, "self-instruct": 4}


def test_tokens_are_matched_by_what_the_teacher_counted(file_store: Store) -> None:
    found = cut(file_store, responses(file_store, 6, tokens=20), responses(file_store, 6, tokens=10), "tokens")
    assert (found.table().num_rows, found.manifest.figures["amount"]) == (3, 60)


def test_each_branch_keeps_all_where_nothing_is_matched(file_store: Store) -> None:
    assert cut(file_store, responses(file_store, 6), responses(file_store, 4), "none").table().num_rows == 6


def test_device_seconds_come_from_the_ledgers(file_store: Store) -> None:
    own, other = responses(file_store, 10, seconds=20), responses(file_store, 35, seconds=70)
    probes = publish(file_store, "influence", figures={}, tables={}, meter=spending(60))
    inputs = {"before.tailored.it1.influence": probes, "final.tailored.r": own, "final.self-instruct.r": other}
    found = cut(file_store, own, other, "device_seconds", **inputs)
    assert found.table().num_rows == 5


@pytest.mark.parametrize("match", ["rows", "tokens"])
def test_rationales_are_cut_as_responses_are(file_store: Store, match: str) -> None:
    """ARTE's rows; what is left of them still has every column that training reads."""
    rows = rationales()
    own, other = rationale_table(file_store, rows), rationale_table(file_store, rows[:6])
    found = cut(file_store, own, other, match).table()
    assert found.num_rows == 6
    assert usable_rows(found).num_rows == 6


def test_a_budget_that_leaves_no_row_says_what_to_raise(file_store: Store) -> None:
    own, other = responses(file_store, 10, seconds=20), responses(file_store, 10, seconds=20)
    probes = publish(file_store, "influence", figures={}, tables={}, meter=spending(600))
    inputs = {"before.tailored.it1.influence": probes, "final.tailored.r": own, "final.self-instruct.r": other}
    with pytest.raises(StageError, match=r"20 device seconds leave tailored 0 of 10 rows.*self-instruct: N") as caught:
        cut(file_store, own, other, "device_seconds", **inputs)
    assert caught.value.code == ExitCode.GATE


def test_the_devices_of_a_server_cannot_be_counted(file_store: Store) -> None:
    own, other = responses(file_store, 10), responses(file_store, 10)
    inputs = {"final.tailored.r": own, "final.self-instruct.r": other}
    with pytest.raises(StageError, match="match rows or tokens") as caught:
        cut(file_store, own, other, "device_seconds", **inputs)
    assert caught.value.code == ExitCode.BAD_SETTINGS
