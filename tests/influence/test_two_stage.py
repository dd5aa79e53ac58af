"""What two_stage looks at again, with made-up scores: no pair may rest on a comparison of two methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.contract.store import Store
from stages.influence.examples import Example
from stages.influence.inputs import Probes
from stages.influence.results import ExactResult, FirstOrderResult
from tests.support import publish, run_stage

Row = dict[str, Any]
# First order and exact of four instructions of one prompt: a Spearman correlation of 1, a slope of 0.7.
BENT = {"a": (0.12, 0.084), "b": (0.10, 0.070), "c": (0.086, 0.060), "d": (-0.143, -0.10)}
# The same, and the best one is also missed by more than the others.
UPSET = {**BENT, "a": (0.12, 0.063)}
AUDIT = {"decision": "two_stage", "intercept": 0.0, "slope": 0.7, "noise": {}}


class MadeUp:
    """A scorer that knows each example by its first token; `asked` lists what it was to look at again."""

    def __init__(self, scores: Mapping[str, tuple[float, float]]) -> None:
        self.scores = scores
        self.asked: list[str] = []

    def encode(self, instruction: str, response: str) -> Example:
        return Example((ord(response), 1, 2), 1)

    def first_orders(self, examples: list[Example]) -> list[FirstOrderResult]:
        return [FirstOrderResult(self._of(each)[0], 0.01, 2.0) for each in examples]

    def corrected(self, example: Example, first: FirstOrderResult) -> ExactResult:
        self.asked.append(chr(example.ids[0]))
        return ExactResult(self._of(example)[1], 0.02, 2.0, np.zeros(2))

    def _of(self, example: Example) -> tuple[float, float]:
        return self.scores[chr(example.ids[0])]


def two_stage(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    scores: Mapping[str, tuple[float, float]],
    *,
    figures: Mapping[str, Any] | None = None,
    known: Mapping[str, float] | None = None,
    instructions: Mapping[str, str] | None = None,
    **settings: Any,
) -> tuple[dict[str, Row], list[str]]:
    """(rows by response, responses looked at again in order). Responses are instructions of their own unless
    `instructions` says otherwise; `known` are exact scores of the audit."""
    made_up = MadeUp(scores)

    @contextmanager
    def opened(context: Any) -> Iterator[Probes]:
        yield Probes(made_up, made_up, 1, corrects=True)  # type: ignore[arg-type]

    monkeypatch.setattr("stages.influence.stage.opened", opened)
    rows = [
        {"response_id": name, "instruction_id": (instructions or {}).get(name, name), "prompt_id": "p"}
        | {"instruction": "?", "response": name, "usable": True, "split": "candidate"}
        for name in scores
    ]
    inputs = {"rows": publish(store, "responses", tables={"rows": pa.Table.from_pylist(rows)})}
    inputs |= {name: publish(store, name) for name in ("checkpoint", "reference")}
    if figures is not None:
        exact = [
            {"response_id": name, "exact": score, "exact_stderr": 0.01, "loss": 2.0, "reference_nll": [1.0]}
            for name, score in (known or {"elsewhere": 0.0}).items()
        ]
        inputs["audit"] = publish(store, "audit", tables={"rows": pa.Table.from_pylist(exact)}, figures=figures)
    found = run_stage(store, "influence", {"method": "two_stage", **settings}, inputs)
    return {row["response_id"]: row for row in found.table().to_pylist()}, made_up.asked


def best(rows: Mapping[str, Row]) -> str:
    return max(rows, key=lambda name: rows[name]["score"])


def test_first_order_is_put_on_the_scale_of_exact_scores(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, asked = two_stage(file_store, monkeypatch, BENT, figures=AUDIT)
    assert sorted(asked) == ["a", "d"]
    assert best(rows) == "a"
    assert (rows["b"]["method"], rows["b"]["first_order"]) == ("first_order", 0.10)
    assert rows["b"]["score"] == pytest.approx(0.07) and rows["b"]["stderr"] == pytest.approx(0.007)


def test_a_correction_that_takes_the_best_one_down_brings_up_another(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, asked = two_stage(file_store, monkeypatch, UPSET, figures=AUDIT)
    assert asked == ["a", "d", "b"]
    assert best(rows) == "b" and rows["b"]["method"] == "corrected"


@pytest.mark.parametrize("figures", [None, {**AUDIT, "slope": None}, {**AUDIT, "slope": -0.7}])
def test_without_a_scale_the_ends_are_looked_at_until_they_hold(
    file_store: Store, monkeypatch: pytest.MonkeyPatch, figures: Mapping[str, Any] | None
) -> None:
    rows, asked = two_stage(file_store, monkeypatch, BENT, figures=figures)
    assert asked == ["a", "d", "b", "c"]
    assert {row["score"] for row in rows.values()} == {exact for _, exact in BENT.values()}


def test_several_a_side_are_all_looked_at_again(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {name: (0.1 * place, 0.07 * place) for place, name in enumerate("abcdefgh")}
    rows, asked = two_stage(file_store, monkeypatch, many, figures=AUDIT, per_side=2)
    assert asked == ["a", "b", "g", "h"]
    assert [name for name, row in rows.items() if row["method"] == "corrected"] == asked


def test_an_exact_score_of_the_audit_is_used_only_where_the_whole_instruction_is_looked_at_again(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"a": (0.9, 0.8), "b": (0.8, 0.7), "c": (0.3, 0.2), "d": (0.2, 0.1), "e": (-0.5, -0.4), "f": (-0.6, -0.5)}
    instructions = {"a": "best", "b": "best", "c": "middle", "d": "middle", "e": "worst", "f": "worst"}
    rows, asked = two_stage(
        file_store, monkeypatch, scores, figures=AUDIT, known={"a": 0.8, "c": 0.2}, instructions=instructions
    )
    assert asked == ["b", "e", "f"]
    assert {name: row["method"] for name, row in rows.items()} == {
        **dict.fromkeys("bef", "corrected"),
        **dict.fromkeys("cd", "first_order"),
        "a": "exact",
    }


def test_a_score_within_what_its_method_misses_is_a_tie(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {
        **AUDIT,
        "residual": 0.04,
        "corrected": {"residual": 0.03},
        "noise": {"first_order": 1e-9, "corrected": 0.04, "exact": 1e-6},
    }
    rows, _ = two_stage(file_store, monkeypatch, BENT, figures=figures, known={"d": -0.10})
    noise = {"a": 0.05, "b": 0.04, "c": 0.04, "d": 1e-6}
    assert {name: row["noise"] for name, row in rows.items()} == pytest.approx(noise)
    assert {name: row["tie"] for name, row in rows.items()} == {"a": True, "b": True, "c": True, "d": False}
