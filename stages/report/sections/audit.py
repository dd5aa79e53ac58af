"""Does the first-order score rank candidates as the exact one does?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.report.draw.charts import scatter
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import fixed, number, plural

TITLE = "First order against exact"
_ALL_EXACT = "So every candidate was scored exactly."


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
            "Agreement with exact scores on the audit sample; σ is what rounding does",
            [
                "audit",
                "score",
                "candidates",
                "Spearman",
                "Pearson",
                "top tenth found",
                "bottom tenth found",
                "slope",
                "misses (st. dev.)",
                "σ",
                "asked for",
                "first order",
            ],
            [row for node in found for row in _table_rows(node)],
            numeric=range(2, 11),
        )
    )
    names = ("candidates", "spearman", "pearson", "slope", "residual", "decision", "noise", "corrected")
    numbers: dict[str, Any] = {node.name: {key: node.figures.get(key) for key in names} for node in found}
    return Section("audit", TITLE, [_told(nodes, node) for node in found], blocks, numbers)


def _table_rows(node: Node) -> list[list[str]]:
    """First order, corrected scores where there are such, and exact ones, of which only σ is to be told."""
    figures = node.figures
    verdict = {"two_stage": "trusted", "exact": "not trusted", "noise": "not known"}.get(
        str(figures.get("decision")), ""
    )
    rows = [[*_scored(node, "first_order", figures), fixed(figures.get("threshold"), 2), verdict]]
    if figures.get("corrected"):
        rows.append([*_scored(node, "corrected", figures["corrected"]), "", ""])
    return [*rows, [*_scored(node, "exact", {}), "", ""]]


def _scored(node: Node, method: str, judged: Mapping[str, Any]) -> list[str]:
    return [
        node.name,
        method.replace("_", " "),
        str(node.figures.get("candidates", 0)),
        fixed(judged.get("spearman"), 3),
        fixed(judged.get("pearson"), 3),
        fixed(judged.get("recall_top"), 2),
        fixed(judged.get("recall_bottom"), 2),
        fixed(judged.get("slope"), 3),
        number(judged.get("residual")),
        number(node.figures.get("noise", {}).get(method)),
    ]


def _told(nodes: Nodes, audit: Node) -> str:
    """What one audit found, and what followed for the scores that rest on it."""
    scores = [node for node in nodes.of_stage("influence") if nodes.source(node.name, "audit") == audit]
    asked = {str(node.figures.get("asked")) for node in scores}
    return f"{audit.name}: {_agreement(audit)} {_consequence(audit, asked)}".rstrip()


def _agreement(node: Node) -> str:
    figures = node.figures
    spearman, threshold = figures.get("spearman"), figures.get("threshold")
    if figures.get("decision") == "noise":
        return (
            f"Exact scores are noise themselves: rounding moves one by {number(figures['noise']['exact'])} (σ), and "
            f"they differ by {number(figures.get('spread'))} (standard deviation), so they cannot judge first order."
        )
    if spearman is None:
        return "The agreement of first order with exact scores could not be measured."
    return (
        f"First order ranks candidates with a Spearman correlation of {fixed(spearman, 2)} to the exact scores; "
        f"{fixed(threshold, 2)} was asked for."
    )


def _consequence(node: Node, asked: set[str]) -> str:
    """What the audit's decision meant, by the methods that were asked for."""
    trusted = node.figures.get("decision") == "two_stage"
    if "two_stage" in asked:
        return f"So it decided which candidates are looked at again, {_again(node)}." if trusted else _ALL_EXACT
    if "first_order" in asked:
        return (
            "So its scores may stand for exact ones."
            if trusted
            else "The scores that rest on it are first order all the same, as the recipe asks (influence.method)."
        )
    return "The scores that rest on it are exact in any case." if asked else ""


def _again(node: Node) -> str:
    """How two_stage looks at a candidate again."""
    figures = node.figures
    corrected, rows = figures.get("corrected"), figures.get("corrected_rows")
    if not corrected or not rows:
        return "exactly"
    return (
        f"with what first order misses on {plural(rows, 'reference row')} of {figures.get('reference_rows')}; such "
        f"corrected scores have a Spearman correlation of {fixed(corrected.get('spearman'), 2)}"
    )
