"""What quality costs: each student's result against everything that was spent on its data and training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stages.contract.ledger import add_ledgers
from stages.evaluate.bootstrap import Interval
from stages.evaluate.names import split_replica
from stages.report.branches import Branches
from stages.report.draw.points import Point, Series, points
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import fixed, number, percent, plural, seconds, signed

TITLE = "Cost against quality"
_UNTRAINED = "base"


@dataclass(frozen=True)
class _Quality:
    """What the students are measured by.

    Attributes:
        axis: what a chart calls it.
        better: which way is better.
        told: a value in a table.
        gained: of a value and the first student's.
    """

    name: str
    axis: str
    better: str
    told: Callable[[float], str]
    gain: str
    gained: Callable[[float, float], str]


_LOSS = _Quality(
    "held-out loss", "held-out loss (nats per token)", "Lower", lambda value: fixed(value, 4),
    "below", lambda value, base: percent(1 - value / base),
)  # fmt: skip


def _accuracy_after(shots: int) -> _Quality:
    told = f"right answers after {plural(shots, 'example')}"
    return _Quality(
        told, f"{told} (share)", "Higher", percent, "points above", lambda value, base: signed(100 * (value - base))
    )


@dataclass(frozen=True)
class _Spent:
    """A student: its result, seconds of all work behind it, device seconds, and tokens."""

    name: str
    result: Interval
    total: float
    device: float
    tokens: int


def section(nodes: Nodes, branches: Branches) -> Section:
    measure = _LOSS if nodes.own_evaluation() else _accuracy_after(_fewest_shots(nodes))
    # A student of a teacher on its way is no competitor: the whole training of the teacher is behind it.
    passing = {each["folder"] for each in nodes.on_the_way(branches.main)}
    spent = sorted((each for each in _spent(nodes) if each.name not in passing), key=lambda each: each.device)
    if len(spent) < 2:
        return left_out("value", TITLE, "It takes two students to set quality against cost.")
    drawing = points(
        [
            Series(each.name, [Point(each.device / 60, each.result, each.name)], branches.colour(each.name), apart=True)
            for each in spent
        ],
        x_label="device minutes behind the student",
        y_label=measure.axis,
        title=f"{measure.name.capitalize()} of each student against its cost",
    )
    caption = (
        "Cost is everything upstream: seeds, generation, probes, the teacher's training, the student's. What branches "
        f"share counts for each of them in full. {measure.better} and further left is better; intervals are each "
        "result's own."
    )
    base = spent[0]
    rows = [
        [
            each.name, measure.told(each.result.value), seconds(each.device), seconds(each.total), number(each.tokens),
            measure.gained(each.result.value, base.result.value) if each is not base else "",
        ]
        for each in spent
    ]  # fmt: skip
    head = ["student", measure.name, "device time", "time of all work", "tokens", f"{measure.gain} {base.name}"]
    table = Table("Cost and quality by student", head, rows, numeric=(1, 2, 3, 4, 5))
    numbers: dict[str, Any] = {
        each.name: {
            "loss" if measure is _LOSS else "accuracy": each.result.value,
            "device_seconds": each.device,
            "seconds": each.total,
            "tokens": each.tokens,
        }
        for each in spent
    }
    return Section("value", TITLE, [caption], [Figure("value", drawing, caption), table], numbers)


def _spent(nodes: Nodes) -> list[_Spent]:
    """Students whose training is a node of the run, and the untrained one at no cost. Of several seeds the first one's
    training counts: the others measure, they are not needed."""
    found = []
    trained, results = _students(nodes)
    for name, result in results.items():
        if name in trained:
            ledger = add_ledgers(each.ledger for each in nodes.upstream(trained[name].name))
            found.append(_Spent(name, result, ledger.total_seconds, ledger.device_seconds, ledger.tokens))
        elif name == _UNTRAINED:
            found.append(_Spent(name, result, 0.0, 0.0, 0))
    return found


def _students(nodes: Nodes) -> tuple[dict[str, Node], dict[str, Interval]]:
    """(the training of each student, its result): held-out losses, or of tasks the right answers after the fewest
    examples."""
    losses, accuracy = nodes.own_evaluation(), nodes.get("accuracy")
    if losses is not None:
        figures: dict[str, Any] = losses.figures["students"]
        return nodes.trained_students(), {
            name: Interval(each["value"], each["low"], each["high"]) for name, each in figures.items()
        }
    if accuracy is None:
        return {}, {}
    trained: dict[str, Node] = {}
    for answers, given in nodes.inputs(accuracy.name):
        student = nodes.source(answers.name, "student")
        if student is not None:
            trained.setdefault(split_replica(given.removeprefix("answers."))[0], student)
    listed, fewest = accuracy.figures["students"], _fewest_shots(nodes)
    return trained, {
        each["student"]: Interval(each["accuracy"], each["low"], each["high"])
        for each in listed
        if each["shots"] == fewest
    }


def _fewest_shots(nodes: Nodes) -> int:
    accuracy = nodes.get("accuracy")
    return min((each["shots"] for each in accuracy.figures["students"]), default=0) if accuracy else 0
