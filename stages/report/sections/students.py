"""The students' loss on the held-out half of the reference."""

from __future__ import annotations

from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.charts import intervals
from stages.report.nodes import Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import count, fixed, signed

TITLE = "The students"


def section(nodes: Nodes, branches: Branches) -> Section:
    node = nodes.own_evaluation()
    if node is None:
        return left_out("students", TITLE, "This run evaluated no student.")
    # Those of a teacher on its way have a section of their own.
    left_out_here = {each["folder"] for each in nodes.on_the_way(branches.main)}
    students: dict[str, Any] = {
        name: each for name, each in node.figures["students"].items() if name not in left_out_here
    }
    differences: list[dict[str, Any]] = sorted(
        (
            towards(branches.main, each)
            for each in node.figures["differences"]
            if each["first"] in students and each["second"] in students
        ),
        key=lambda each: (each["first"] != branches.main, each["second"] == "base"),
    )
    order = sorted(students, key=lambda name: (name != "base", name == branches.main, name))
    losses = [(name, _interval(students[name]), branches.colour(name)) for name in order]
    blocks: list[Figure | Table] = [
        Figure(
            "students",
            intervals(losses, x_label="held-out loss per token (nats)", title="Held-out loss of each student"),
            "Lower is better. The intervals overlap because reference rows differ more than students do; differences "
            "between students are judged row by row.",
        )
    ]
    if differences:
        rows = [
            (f"{each['first']} − {each['second']}", _interval(each), branches.colour(each["first"]))
            for each in differences
        ]
        drawing = intervals(
            rows, x_label="difference in loss (nats per token)", title="Differences between students", zero=True
        )
        blocks.append(
            Figure(
                "differences", drawing, "Left of the dashed line the first-named student is better (paired bootstrap)."
            )
        )
    blocks.append(
        Table(
            "Students on the held-out reference rows",
            ["student", "loss", "interval", "reference rows", "tokens"],
            [
                [
                    name,
                    fixed(students[name]["value"], 4),
                    f"{fixed(students[name]['low'], 4)} … {fixed(students[name]['high'], 4)}",
                    count(students[name]["rows"]),
                    count(students[name]["tokens"]),
                ]
                for name in order
            ],
            numeric=range(1, 5),
        )
    )
    level = f"{100 * node.figures['confidence']:g} %"
    text = [
        f"Loss on rows that neither the probes nor any training saw; intervals of {level} by resampling those rows.",
        *(_said(each) for each in differences),
    ]
    return Section("students", TITLE, text, blocks, {"students": students, "differences": differences})


def _interval(figures: dict[str, Any]) -> Interval:
    return Interval(figures["value"], figures["low"], figures["high"])


def towards(main: str, each: dict[str, Any]) -> dict[str, Any]:
    """A difference with the main student first, and base last: below zero then says that training helped."""
    if each["second"] == main or (each["first"] == "base" and each["second"] != "base"):
        swapped = {"value": -each["value"], "low": -each["high"], "high": -each["low"]}
        return {**each, "first": each["second"], "second": each["first"], **swapped}
    return each


def _said(each: dict[str, Any]) -> str:
    interval = _interval(each)
    if interval.includes_zero:
        end = "the interval includes 0, so the two cannot be told apart"
    else:
        end = f"{each['first'] if interval.value < 0 else each['second']} is better"
    return (
        f"{each['first']} against {each['second']}: {signed(interval.value)} "
        f"({signed(interval.low)} to {signed(interval.high)}); {end}."
    )
