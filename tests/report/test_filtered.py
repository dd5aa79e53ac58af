"""What the report says was left out: of every stage that leaves out, and why."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stages.contract.artifact import Artifact
from stages.contract.store import Store
from stages.report.nodes import Nodes
from stages.report.section import Section, Table
from stages.report.sections.filtered import section
from tests.support import publish


def left_out(
    store: Store, stage: str, figures: dict[str, Any] | None = None, **tables: list[dict[str, Any]]
) -> Section:
    given = {name: pa.Table.from_pylist(rows) for name, rows in tables.items()}
    made = publish(store, stage, tables=given, figures=figures)
    return section(Nodes([(f"it1.{stage}", Artifact(store, made.key))], []))


def lines(found: Section) -> list[list[list[str]]]:
    return [block.rows for block in found.blocks if isinstance(block, Table)]


def test_what_could_not_be_read_of_a_judge_stands_with_its_reasons(file_store: Store) -> None:
    said = [("Score: 4", None), ("A fine answer.", "no_score"), ("8/10", "other_scale"), ("Fine.", "no_score")]
    answers = [{"response_id": f"r{n // 2}", "answer": text, "reason": why} for n, (text, why) in enumerate(said)]
    rows = [
        {"response_id": "r0", "score": 4.0, "reason": None},
        {"response_id": "r1", "score": None, "reason": "unrated: no_score, other_scale"},
    ]
    found = left_out(file_store, "judge", rows=rows, answers=answers)
    assert found.numbers["dropped"] == {
        "it1.judge": {"unrated": 1}, "it1.judge, answers": {"no_score": 2, "other_scale": 1},
    }  # fmt: skip
    kept, reasons = lines(found)
    assert kept == [["it1.judge", "2", "1", "50 %"], ["it1.judge, answers", "4", "1", "25 %"]]
    assert ["it1.judge, answers", "no score", "2", "A fine answer."] in reasons


def test_candidates_without_a_loss_are_named(file_store: Store) -> None:
    rows = [{"response_id": "r0", "reason": "empty_response: nothing"}, {"response_id": "r1", "reason": None}]
    found = left_out(file_store, "loss", rows=rows)
    assert found.numbers["dropped"] == {"it1.loss": {"empty_response": 1}}


def test_rows_that_were_scored_without_their_end_are_counted(file_store: Store) -> None:
    rows = [{"response_id": f"r{n}", "reason": None, "truncated": n < 2} for n in range(3)]
    found = left_out(file_store, "influence", {"reference_truncated": 1}, rows=rows)
    assert found.numbers["truncated"] == {"it1.influence": {"candidate": 2, "reference row": 1}}
    assert (
        "did not fit max_tokens or the student's context: it1.influence 2 candidates and 1 reference row."
        in found.text[-1]
    )
    assert left_out(file_store, "influence", {"reference_truncated": 0}, rows=rows[2:]).numbers["truncated"] == {}
