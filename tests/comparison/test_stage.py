"""comparison out of other stages' artifacts."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.task import Input
from tests.comparison.test_measures import verdicts
from tests.support import publish, run_stage

LOSSES = [
    {"student": student, "seed": seed, "ref_id": f"r{n}", "nll": 100.0 * loss + n, "tokens": 100}
    for student, seed, loss in (("base", None, 3.0), ("tailored", 1, 2.0), ("tailored", 2, 2.1))
    for n in range(8)
]
SETTINGS = {"baseline": "base", "resamples": 200}


def given(store: Store, **tables: list[dict[str, Any]]) -> dict[str, Input]:
    return {name: publish(store, name, tables={"rows": pa.Table.from_pylist(rows)}) for name, rows in tables.items()}


def test_every_measure_that_is_given_becomes_a_column(file_store: Store) -> None:
    judged = verdicts("tailored", [("student", "tie")] * 9 + [("student", None)])
    for row in judged:
        row["reason"] = None if row["verdict"] else "no_verdict"
    made = run_stage(file_store, "comparison", SETTINGS, given(file_store, losses=LOSSES, winrate=judged))
    cells = {(row["measure"], row["student"]): row for row in made.table("cells").to_pylist()}
    assert {measure for measure, _ in cells} == {"loss", "lc_winrate", "winrate"}
    assert cells["loss", "tailored"]["seeds"] == 2 and cells["loss", "tailored"]["best"]
    assert cells["winrate", "tailored"]["value"] == 75.0
    assert made.manifest.figures["read"]["winrate"] == {"rows": 20, "reasons": {"no_verdict": 1}, "columns": 2}
    told = [(row["measure"], row["first"], row["second"]) for row in made.table("differences").to_pylist()]
    assert ("loss", "base", "tailored") in told and ("winrate", "tailored", "base") in told


def test_judgements_of_which_none_can_be_used_are_bad_data_with_the_reasons(file_store: Store) -> None:
    judged = verdicts("tailored", [(None, None)] * 4)
    for row in judged:
        row["reason"] = "no_verdict"
    with pytest.raises(StageError, match="'no_verdict': 8") as caught:
        run_stage(file_store, "comparison", SETTINGS, given(file_store, winrate=judged))
    assert caught.value.code == ExitCode.BAD_DATA


def test_judgements_of_which_none_can_be_used_cost_the_other_measures_nothing(file_store: Store) -> None:
    judged = [{**row, "reason": "no_verdict"} for row in verdicts("tailored", [(None, None)] * 4)]
    made = run_stage(file_store, "comparison", SETTINGS, given(file_store, losses=LOSSES, winrate=judged))
    assert {row["measure"] for row in made.table("cells").to_pylist()} == {"loss"}
    assert made.manifest.figures["read"]["winrate"] == {"rows": 8, "reasons": {"no_verdict": 8}, "columns": 0}


def test_nothing_to_compare_is_said(file_store: Store) -> None:
    with pytest.raises(StageError, match="there is nothing to compare"):
        run_stage(file_store, "comparison", SETTINGS)
