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


def left_out(store: Store, stage: str, **tables: list[dict[str, Any]]) -> Section:
    made = publish(store, stage, tables={name: pa.Table.from_pylist(rows) for name, rows in tables.items()})
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
