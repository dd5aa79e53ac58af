"""Whether students were trained on all that the budget gave them: rows too long for a student go after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.report.nodes import Node, Nodes
from stages.report.words import count


def unequal(nodes: Nodes) -> dict[str, Any]:
    """What the budget matched, and by node the rows given and left out; empty where no branch lost more than others.

    Branches are compared student by student (`transfer` has further ones), of several seeds the first one.
    """
    students: dict[str, dict[str, Node]] = {}
    matched = ""
    passing = {each["folder"] for each in nodes.on_the_way(nodes.main)}  # no competitors
    for node in nodes.of_stage("sft"):
        given = nodes.source(node.name, "rows")
        if given is not None and given.stage == "budget" and node.branch not in passing:
            matched = given.figures["match"]
            student = str(node.manifest.inputs.get("student"))
            students.setdefault(student, {}).setdefault(node.branch, node)
    found: dict[str, Any] = {}
    for branches in students.values():
        rows = {node.name: _rows(node) for node in branches.values()}
        if len({each["left_out"] for each in rows.values()}) > 1:
            found |= rows
    return {"match": matched, "trainings": found} if found else {}


def _rows(node: Node) -> dict[str, int]:
    left_out = sum(node.figures.get("dropped", {}).values())
    return {"given": node.figures["rows"] + left_out, "left_out": left_out}


def said(found: Mapping[str, Any]) -> str:
    """The sentence for what `unequal` found; empty where it found nothing."""
    if not found:
        return ""
    each = ", ".join(
        f"{name} {count(rows['left_out'])} of {count(rows['given'])}" for name, rows in found["trainings"].items()
    )
    matched = found["match"].replace("_", " ")
    return (
        f"The students were not trained on equal {matched}: after the budget, rows too long for "
        f"sft.max_tokens were left out ({each}). A larger one keeps them; sft.rows takes equally many that fit."
    )
