"""Equal amounts: what is said where rows that a student cannot take were left out after the budget."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from stages.contract.artifact import Artifact
from stages.report.amounts import said, unequal
from stages.report.compared import Compared
from stages.report.nodes import Nodes
from stages.report.verdict import verdict

# Rows too long for the student, by training; each was given 100.
Dropped = dict[str, int]
EDGES = [
    (f"{branch}.budget", f"{branch}.{sft}", "rows")
    for branch in ("tailored", "self-instruct")
    for sft in ("sft-1", "sft-2", "sft-other-1")
]


def nodes(dropped: Dropped) -> Nodes:
    def artifact(stage: str, student: str = "", **figures: Any) -> Artifact:
        manifest = SimpleNamespace(stage=stage, inputs={"student": student}, figures=figures)
        return cast(Artifact, SimpleNamespace(manifest=manifest))

    made = {source: artifact("budget", match="rows") for source, _, _ in EDGES}
    for _, name, _ in EDGES:
        long = dropped.get(name, 0)
        student = "other" if "other" in name else "own"
        made[name] = artifact("sft", student, rows=100 - long, dropped={"too_long": long} if long else {})
    return Nodes(made.items(), EDGES, "tailored")


def test_a_branch_that_lost_more_rows_than_another_is_told_first_in_the_verdict() -> None:
    found = unequal(nodes({"tailored.sft-1": 20, "tailored.sft-2": 20}))
    assert found["trainings"] == {
        "tailored.sft-1": {"given": 100, "left_out": 20}, "self-instruct.sft-1": {"given": 100, "left_out": 0},
    }  # fmt: skip
    (finding,) = verdict({"training": {"unequal": found}}, "tailored", "self-instruct")
    assert finding.tone == "bad"
    assert "not trained on equal rows" in finding.text and "tailored.sft-1 20 of 100" in finding.text


def test_students_of_transfer_are_compared_with_each_other() -> None:
    found = unequal(nodes({"self-instruct.sft-other-1": 3}))
    assert list(found["trainings"]) == ["tailored.sft-other-1", "self-instruct.sft-other-1"]


def test_branches_that_lost_as_many_are_equal() -> None:
    assert unequal(nodes({name: 5 for _, name, _ in EDGES})) == {} and said({}) == ""


def test_the_table_alone_says_it_too() -> None:
    remark = said(unequal(nodes({"tailored.sft-1": 20})))
    table = Compared(["base"], [], {}, "base", 0.95, remark)
    assert "not trained on equal rows" in table.as_latex() and "tailored.sft-1 20 of 100" in table.as_html("T")
