"""Replies of made-up students, and a judge's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from stages.contract.store import Store
from stages.contract.task import Input
from stages.replies.stage import SCHEMA
from tests.generation.inputs import REMOTE, remote
from tests.support import publish


def replies(store: Store, answers: Sequence[Sequence[str]], *, reference: str | None = None) -> Input:
    """One student's replies: for each question the answers to its turns."""
    rows = [
        {
            "question_id": f"q{n:03}", "category": "math" if reference else "writing", "turn": turn,
            "question": f"Question {n}, turn {turn}?", "reference": reference, "difficulty": None, "answer": answer,
            "finish_reason": "stop", "output_tokens": 5,
        }
        for n, turns in enumerate(answers)
        for turn, answer in enumerate(turns, start=1)
    ]  # fmt: skip
    return publish(store, "replies", tables={"rows": pa.Table.from_pylist(rows, schema=SCHEMA)})


def judged_inputs(store: Store, students: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Input]:
    return {f"replies.{name}": replies(store, answers) for name, answers in students.items()} | {"judge": REMOTE}


def judged_by(url: str, **settings: Any) -> dict[str, Any]:
    return {"engine": remote(url), **settings}
