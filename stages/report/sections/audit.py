"""Does the first-order score rank candidates as the exact one does?"""

from __future__ import annotations

from typing import Any

from stages.report.draw.charts import scatter
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import fixed, number, plural

TITLE = "First order against exact"


def section(nodes: Nodes) -> Section:
    found = nodes.of_stage("audit")
    if not found:
        return left_out("audit", TITLE, "This run has no audit: its scores are of one method only.")
    last = nodes.latest("audit") or found[-1]
    points = [
        (row["first_order"], row["exact"])
        for row in last.rows(columns=("first_order", "exact"))
        if row["first_order"] is not None and row["exact"] is not None
    ]
    blocks: list[Figure | Table] = []
    if points:
        blocks.append(
            Figure(
                "audit",
                scatter(
                    [x for x, _ in points],
                    [y for _, y in points],
                    x_label="first order",
                    y_label="exact",
                    title="Scores of the audit sample by both methods",
                ),
                f"{last.name}: {plural(len(points), 'candidate')} drawn uniformly and scored both ways.",
            )
        )
    blocks.append(
        Table(
            "Agreement on the audit sample",
            [
                "audit",
                "candidates",
                "Spearman",
                "Pearson",
                "top tenth found",
                "bottom tenth found",
                "slope",
                "Spearman, corrected",
                "noise, first order",
                "noise, exact",
                "asked for",
                "first order",
            ],
            [_row(node) for node in found],
            numeric=range(1, 11),
        )
    )
    numbers: dict[str, Any] = {
        node.name: {key: node.figures.get(key) for key in ("candidates", "spearman", "pearson", "decision")}
        for node in found
    }
    asked = {str(node.figures.get("asked")) for node in nodes.of_stage("influence")}
    return Section("audit", TITLE, [f"{_agreement(last)} {_consequence(last, asked)}"], blocks, numbers)


def _row(node: Node) -> list[str]:
    figures = node.figures
    return [
        node.name,
        str(figures.get("candidates", 0)),
        fixed(figures.get("spearman"), 3),
        fixed(figures.get("pearson"), 3),
        fixed(figures.get("recall_top"), 2),
        fixed(figures.get("recall_bottom"), 2),
        fixed(figures.get("slope"), 3),
        fixed((figures.get("corrected") or {}).get("spearman"), 3),
        number(figures.get("noise", {}).get("first_order")),
        number(figures.get("noise", {}).get("exact")),
        fixed(figures.get("threshold"), 2),
        {"two_stage": "trusted", "exact": "not trusted"}.get(str(figures.get("decision")), ""),
    ]


def _agreement(node: Node) -> str:
    spearman, threshold = node.figures.get("spearman"), node.figures.get("threshold")
    if spearman is None:
        return "The agreement of first order with exact scores could not be measured."
    return (
        f"First order ranks candidates with a Spearman correlation of {fixed(spearman, 2)} to the exact scores; "
        f"{fixed(threshold, 2)} was asked for."
    )


def _consequence(node: Node, asked: set[str]) -> str:
    """What the audit's decision meant for the scores of this run, by the methods that it asked for."""
    trusted = node.figures.get("decision") == "two_stage"
    if "two_stage" in asked:
        return (
            "So it decided which candidates are looked at again, exactly."
            if trusted
            else "So every candidate was scored exactly."
        )
    if "first_order" in asked:
        return (
            "So its scores may stand for exact ones."
            if trusted
            else "The scores of this run are first order all the same, as its recipe asks (influence.method)."
        )
    return "The scores of this run are exact in any case."
