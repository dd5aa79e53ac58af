"""The stage `reseed`: which instructions become seeds, and its gate."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from tests.support import publish, run_stage


def reseeded(store: Store, scores: list[float | None], **settings: Any) -> Artifact:
    rows = [
        {"instruction_id": f"i-{number:02}", "instruction": f"Do {number}.", "score": score}
        for number, score in enumerate(scores)
    ]
    given = publish(store, "aggregate", tables={"rows": pa.Table.from_pylist(rows)})
    return run_stage(store, "reseed", {"least_seeds": 1, **settings}, {"scores": given})


def test_the_highest_scores_become_seeds_as_prepare_publishes_them(file_store: Store) -> None:
    found = reseeded(file_store, [0.1, 3.0, None, 2.0, -1.0], share=0.5)
    assert found.table("seeds").to_pylist() == [
        {"seed_id": "i-01", "instruction": "Do 1.", "response": None},
        {"seed_id": "i-03", "instruction": "Do 3.", "response": None},
    ]
    assert found.manifest.figures == {"scored": 4, "seeds": 2, "least_score": 2.0}


def test_equal_scores_are_ordered_by_id(file_store: Store) -> None:
    found = reseeded(file_store, [1.0] * 6, share=0.5)
    assert found.table("seeds")["seed_id"].to_pylist() == ["i-00", "i-01", "i-02"]


def test_too_few_seeds_stop_the_run_with_the_figure(file_store: Store) -> None:
    with pytest.raises(StageError, match="3 of 6 scored instructions become seeds, and 8 are asked for") as caught:
        reseeded(file_store, [1.0] * 6, least_seeds=8)
    assert caught.value.code == ExitCode.GATE
