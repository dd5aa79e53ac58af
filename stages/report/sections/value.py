"""What quality costs: each student's held-out loss against everything that was spent on its data and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.contract.ledger import add_ledgers
from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.points import Point, Series, points
from stages.report.nodes import Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import fixed, number, percent, seconds

TITLE = "Cost against quality"


@dataclass(frozen=True)
class _Spent:
    """A student: its loss, seconds of all work behind it, device seconds, and tokens."""

    name: str
    loss: Interval
    total: float
    device: float
    tokens: int


def section(nodes: Nodes, branches: Branches) -> Section:
    node = nodes.own_evaluation()
    spent = [] if node is None else _spent(nodes, node.name, node.figures["students"])
    if len(spent) < 2:
        return left_out("value", TITLE, "It takes two students to set quality against cost.")
    drawing = points(
        [
            Series(each.name, [Point(each.device / 60, each.loss, each.name)], branches.colour(each.name), apart=True)
            for each in spent
        ],
        x_label="device minutes behind the student",
        y_label="held-out loss (nats per token)",
        title="Held-out loss of each student against its cost",
    )
    caption = (
        "Cost is everything upstream: seeds, generation, probes, the teacher's training, the student's. What branches "
        "share counts for each of them in full. Lower and further left is better; intervals are each loss's own."
    )
    base = spent[0]
    rows = [
        [
            each.name, fixed(each.loss.value, 4), seconds(each.device), seconds(each.total), number(each.tokens),
            percent(1 - each.loss.value / base.loss.value) if each is not base else "",
        ]
        for each in spent
    ]  # fmt: skip
    head = ["student", "held-out loss", "device time", "time of all work", "tokens", f"below {base.name}"]
    table = Table("Cost and quality by student", head, rows, numeric=(1, 2, 3, 4, 5))
    numbers: dict[str, Any] = {
        each.name: {
            "loss": each.loss.value,
            "device_seconds": each.device,
            "seconds": each.total,
            "tokens": each.tokens,
        }
        for each in spent
    }
    return Section("value", TITLE, [caption], [Figure("value", drawing, caption), table], numbers)


def _spent(nodes: Nodes, evaluate: str, students: dict[str, Any]) -> list[_Spent]:
    """Students whose training is a node of the run, and the untrained one at no cost. Of several seeds the first one's
    training counts: the others measure, they are not needed."""
    found = []
    for name, figures in students.items():
        loss = Interval(figures["value"], figures["low"], figures["high"])
        replicas = [
            source
            for source, input_name in nodes.inputs(evaluate)
            if input_name.removeprefix("student.").partition(".seed-")[0] == name
        ]
        if not replicas:
            if name == "base":
                found.append(_Spent(name, loss, 0.0, 0.0, 0))
            continue
        behind = nodes.upstream(replicas[0].name)
        ledger = add_ledgers(each.ledger for each in behind)
        found.append(_Spent(name, loss, ledger.total_seconds, ledger.device_seconds, ledger.tokens))
    return sorted(found, key=lambda each: each.device)
