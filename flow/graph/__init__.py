"""From a recipe to nodes and edges: the rounds, the branches, the evaluation, each in a module of its own."""

from __future__ import annotations

from flow.graph.arte import arte
from flow.graph.branches import branches
from flow.graph.builder import Builder
from flow.graph.evaluation import evaluate, report
from flow.graph.iteration import Iterated, iterate
from flow.graph.model import Edge, Graph, Node, Source
from flow.graph.progress import on_the_way
from flow.recipe import RecipeBase


def build(recipe: RecipeBase) -> Graph:
    """The graph of a recipe: `iterations` are unrolled, and every branch of `compare` shares what it can."""
    builder = Builder(recipe)
    if recipe.method == "arte":
        return _arte(builder)
    builder.add("prepare", "prepare", {})
    last = iterate(builder) if recipe.method == "montessori" else Iterated(recipe.teacher)
    made = branches(builder, last)
    main = made[0]
    evaluate(builder, made, on_the_way(builder, main.name, main.replicas, last.teacher))
    told = report(builder, main.name)
    outputs = {"dataset": main.dataset.node, "student": main.student.node, "report": told.node}
    if isinstance(last.teacher, Edge):
        outputs["teacher"] = last.teacher.node
    return Graph(recipe.name, builder.nodes, outputs)


def _arte(builder: Builder) -> Graph:
    made = arte(builder)
    told = report(builder, made.main)
    outputs = {"dataset": made.dataset.node, "student": made.student.node, "report": told.node}
    if isinstance(made.teacher, Edge):
        outputs["teacher"] = made.teacher.node
    return Graph(builder.recipe.name, builder.nodes, outputs)


__all__ = ["Edge", "Graph", "Node", "Source", "build"]
