"""What is asked of the students that the branches leave, and the report that tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flow.graph.branches import Branch
from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Edge, Source
from stages.contract.catalog import spec


def evaluate(builder: Builder, branches: Sequence[Branch]) -> None:
    """The evaluation of every branch's student beside the untrained one."""
    students: dict[str, Source] = {"base": builder.recipe.student}
    students |= {each.name: each.student for each in branches}
    named = {f"student.{name}": model for name, model in students.items()}
    builder.add("evaluate", "evaluate", {**named, "reference": PREPARE})


def report(builder: Builder, main: str) -> Edge:
    """The report, made from every other node."""
    recipe = builder.recipe
    edges = [
        [each.node, node.name, name]
        for node in builder.nodes.values()
        for name, each in node.inputs.items()
        if isinstance(each, Edge)
    ]
    # What does not change the result stays out, so that moving a store or adding shards keeps the report cached.
    shown = recipe.model_dump(mode="json", exclude={"store", "run"})
    settings: dict[str, Any] = {
        "title": recipe.name,
        "run": recipe.name,
        "recipe": shown,
        "edges": edges,
        "main": main,
        "baseline": next(iter(recipe.compare), ""),
    }
    return builder.add(
        "report",
        "report",
        {f"node.{name}": Edge(name) for name in builder.nodes},
        spec("report").settings.model_validate(settings),
    )
