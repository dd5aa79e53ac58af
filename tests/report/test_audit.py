"""What the report says of an audit: what it found, and what followed for the scores that rest on it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.store import Store
from stages.report.nodes import Nodes
from stages.report.section import Section, Table
from stages.report.sections.audit import section
from tests.support import publish

CORRECTED = {"spearman": 0.998, "pearson": 0.9991, "recall_top": 1.0, "recall_bottom": 0.75, "slope": 1.001}
TRUSTED = {
    "candidates": 32, "spearman": 0.96, "pearson": 0.97, "recall_top": 0.67, "recall_bottom": 1.0, "slope": 1.02,
    "residual": 4e-5, "spread": 7e-4, "threshold": 0.9, "decision": "two_stage", "reference_rows": 33,
    "corrected_rows": 9, "corrected": {**CORRECTED, "residual": 1e-5},
    "noise": {"exact": 2e-6, "corrected": 3e-6, "first_order": 1e-9},
}  # fmt: skip
NOT_TRUSTED = {**TRUSTED, "spearman": 0.71, "decision": "exact"}
UNMEASURED = {
    **TRUSTED, "candidates": 2, "spearman": None, "pearson": None, "slope": None, "residual": None, "decision": "exact",
    "corrected": None, "corrected_rows": 0, "noise": {"exact": 2e-6, "first_order": 1e-9},
}  # fmt: skip
NOISE = {**TRUSTED, "spearman": 0.3, "residual": None, "decision": "noise", "noise": {"exact": 1.5e-3}}


def told(store: Store, audits: dict[str, dict[str, Any]], asked: str = "two_stage") -> Section:
    """The section of a run with one influence node for each audit."""
    found, edges = [], []
    for name, figures in audits.items():
        rows = pa.Table.from_pylist([{"first_order": 0.1 * n, "exact": 0.1 * n} for n in range(3)])
        audit = publish(store, "audit", tables={"rows": rows}, figures=figures)
        scores = publish(store, "influence", figures={"asked": asked})
        found += [(f"{name}.audit", Artifact(store, audit.key)), (f"{name}.influence", Artifact(store, scores.key))]
        edges.append((f"{name}.audit", f"{name}.influence", "audit"))
    return section(Nodes(found, edges))


@pytest.mark.parametrize(
    ("figures", "asked", "words"),
    [
        (
            TRUSTED,
            "two_stage",
            "it1.audit: First order ranks candidates with a Spearman correlation of 0.96 to the exact scores; 0.90 was "
            "asked for. So it decided which candidates are looked at again, with what first order misses on 9 "
            "reference rows of 33; such corrected scores have a Spearman correlation of 1.00.",
        ),
        ({**TRUSTED, "corrected": None}, "two_stage", "which candidates are looked at again, exactly."),
        (TRUSTED, "first_order", "So its scores may stand for exact ones."),
        (NOT_TRUSTED, "two_stage", "0.90 was asked for. So every candidate was scored exactly."),
        (NOT_TRUSTED, "first_order", "first order all the same, as the recipe asks"),
        (NOT_TRUSTED, "exact", "exact in any case."),
        (UNMEASURED, "two_stage", "could not be measured. So every candidate was scored exactly."),
        (
            NOISE,
            "first_order",
            "rounding moves one by 1.50·10⁻³ (σ), and they differ by 7.00·10⁻⁴ (standard deviation)",
        ),
    ],
)
def test_an_audit_says_what_followed_from_it(file_store: Store, figures: Any, asked: str, words: str) -> None:
    (text,) = told(file_store, {"it1": figures}, asked).text
    assert words in text


def test_each_iteration_has_a_sentence_of_its_own_audit(file_store: Store) -> None:
    first, second = told(file_store, {"it1": NOT_TRUSTED, "it2": TRUSTED}).text
    assert first.startswith("it1.audit: ") and "scored exactly" in first
    assert second.startswith("it2.audit: ") and "looked at again" in second


def test_the_table_has_each_methods_agreement_and_noise(file_store: Store) -> None:
    found = told(file_store, {"it1": TRUSTED, "it2": UNMEASURED})
    (table,) = (block for block in found.blocks if isinstance(block, Table))
    assert [" | ".join(row) for row in table.rows] == [
        "it1.audit | first order | 32 | 0.960 | 0.970 | 0.67 | 1.00 | 1.020 | 4.00·10⁻⁵ | 1.00·10⁻⁹ | 0.90 | trusted",
        "it1.audit | corrected | 32 | 0.998 | 0.999 | 1.00 | 0.75 | 1.001 | 1.00·10⁻⁵ | 3.00·10⁻⁶ |  | ",
        "it1.audit | exact | 32 | – | – | – | – | – | – | 2.00·10⁻⁶ |  | ",
        "it2.audit | first order | 2 | – | – | 0.67 | 1.00 | – | – | 1.00·10⁻⁹ | 0.90 | not trusted",
        "it2.audit | exact | 2 | – | – | – | – | – | – | 2.00·10⁻⁶ |  | ",
    ]
    assert found.numbers["it1.audit"]["corrected"]["residual"] == 1e-5
