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
    last = found[-1]
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
            ["audit", "candidates", "Spearman", "Pearson", "slope", "noise, exact", "asked for", "then used"],
            [_row(node) for node in found],
            numeric=range(1, 7),
        )
    )
    numbers: dict[str, Any] = {
        node.name: {key: node.figures.get(key) for key in ("candidates", "spearman", "pearson", "decision")}
        for node in found
    }
    return Section("audit", TITLE, [_text(last)], blocks, numbers)


def _row(node: Node) -> list[str]:
    figures = node.figures
    return [
        node.name,
        str(figures.get("candidates", 0)),
        fixed(figures.get("spearman"), 3),
        fixed(figures.get("pearson"), 3),
        fixed(figures.get("slope"), 3),
        number(figures.get("noise", {}).get("exact")),
        fixed(figures.get("threshold"), 2),
        str(figures.get("decision", "")).replace("_", " "),
    ]


def _text(node: Node) -> str:
    spearman, threshold = node.figures.get("spearman"), node.figures.get("threshold")
    if spearman is None:
        return "The agreement could not be measured, so every candidate was scored exactly."
    if node.figures.get("decision") == "exact":
        return (
            f"First order ranks candidates with a Spearman correlation of {fixed(spearman, 2)} to the exact scores, "
            f"below the {fixed(threshold, 2)} asked for: every candidate was scored exactly."
        )
    return (
        f"First order ranks candidates with a Spearman correlation of {fixed(spearman, 2)} to the exact scores "
        f"({fixed(threshold, 2)} was asked for), so it may decide which candidates are scored exactly."
    )
