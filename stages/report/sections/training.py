"""Loss curves of everything that was trained."""

from __future__ import annotations

from stages.report.amounts import said, unequal
from stages.report.branches import Branches
from stages.report.draw.charts import Line, lines
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import count, fixed, number

TITLE = "Training"
_MOST_CURVES = 4
_CHARTS = {
    "warmup": ("Student warm-up", "loss per token (nats)"),
    "dpo": ("Teacher, DPO", "DPO loss"),
    "sft": ("Students", "loss per token (nats)"),
}


def section(nodes: Nodes, branches: Branches) -> Section:
    blocks: list[Figure | Table] = []
    trained = [node for stage in _CHARTS for node in nodes.of_stage(stage)]
    if not trained:
        return left_out("training", TITLE, "Nothing was trained in this run.")
    for stage, (title, label) in _CHARTS.items():
        curves = [Line(_short(node), _curve(node), branches.colour(node.branch)) for node in nodes.of_stage(stage)]
        curves = [each for each in curves if each.points][-_MOST_CURVES:]
        if curves:
            drawing = lines(curves, x_label="optimiser step", y_label=label, title=f"{title}: loss by step")
            caption = f"{title}: each batch (faint) and the running mean."
            blocks.append(Figure(f"loss-{stage}", drawing, caption))
    blocks.append(
        Table(
            "Trainings",
            ["node", "rows", "too long", "steps", "batch", "tokens", "first loss", "last loss"],
            [_row(node) for node in trained],
            numeric=range(1, 8),
        )
    )
    heldout = [row for node in nodes.of_stage("dpo") if (row := _heldout(node))]
    if heldout:
        head = ["node", "pairs", "loss before", "after", "accuracy before", "after", "margin after"]
        blocks.append(Table("The teacher on held-out pairs", head, heldout, numeric=range(1, 7)))
    amounts = unequal(nodes)
    return Section("training", TITLE, [said(amounts)] if amounts else [], blocks, {"unequal": amounts})


def _short(node: Node) -> str:
    return node.name.replace(f".{node.stage}", "")


def _curve(node: Node) -> list[tuple[float, float]]:
    return [(each["step"], each["loss"]) for each in node.figures.get("loss", []) if each["loss"] is not None]


def _row(node: Node) -> list[str]:
    figures, curve = node.figures, _curve(node)
    return [
        node.name,
        count(figures.get("rows", 0)),
        count(sum(figures.get("dropped", {}).values())),
        count(figures.get("steps", 0)),
        count(figures.get("batch", 0)),
        count(figures.get("tokens", 0)),
        number(curve[0][1] if curve else None),
        number(curve[-1][1] if curve else None),
    ]


def _heldout(node: Node) -> list[str]:
    figures = node.figures.get("heldout", {})
    if "before" not in figures:
        return []
    before, after = figures["before"], figures["after"]
    return [
        node.name,
        count(figures["pairs"]),
        fixed(before["loss"], 3),
        fixed(after["loss"], 3),
        fixed(before["accuracy"], 2),
        fixed(after["accuracy"], 2),
        number(after["margin"]),
    ]
