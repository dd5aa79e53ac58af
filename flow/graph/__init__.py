"""From a recipe to nodes and edges: rounds, branches, transfer and evaluation, each in a module of its own."""

from __future__ import annotations

from flow.graph.arte import arte
from flow.graph.branches import branches
from flow.graph.builder import Builder
from flow.graph.evaluation import evaluate, report
from flow.graph.iteration import Iterated, iterate
from flow.graph.model import Edge, Graph, Node, Source
from flow.graph.progress import on_the_way
from flow.graph.transfer import transfer
from flow.methods import own_method
from flow.recipe import RecipeBase


def build(recipe: RecipeBase) -> Graph:
    """The graph of a recipe: `iterations` are unrolled, and every branch of `compare` shares what it can."""
    builder = Builder(recipe)
    if recipe.method == "arte":
        return _arte(builder)
    builder.add("prepare", "prepare", {})
    last = Iterated(recipe.teacher)
    if recipe.method == "montessori":
        last = iterate(builder, own_method(recipe.method, recipe.signal, recipe.update))
    made = branches(builder, last)
    main = made[0]
    passing = on_the_way(builder, main.name, main.replicas, last.teacher)
    transfer(builder, made)
    evaluate(builder, made, passing)
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
