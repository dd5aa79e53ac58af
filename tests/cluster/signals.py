"""A judge node and an in-context node on ready-made rows, as a graph: what a controller and one machine both run."""

from __future__ import annotations

from flow.graph import Edge, Graph, Node
from flow.recipe import RecipeBase
from stages.contract.catalog import spec

READY = "tests.toy.ready"
SIGNALS = ("judge", "incontext")
SHARDS = 2


def signals_graph(recipe: RecipeBase) -> Graph:
    """Both signals as a recipe sets them, in two shards each; models are its teacher and its student."""
    ready = ("candidates", "tasks", "rationales", "preference")
    nodes = [Node(what, READY, spec(READY).settings.model_validate({"what": what}), {}, 1, "toy") for what in ready]
    inputs = {
        "judge": {"rows": Edge("candidates"), "judge": recipe.teacher},
        "incontext": {
            "rows": Edge("rationales"),
            "student": recipe.student,
            "tasks": Edge("tasks"),
            "preference": Edge("preference"),
        },
    }
    nodes += [Node(name, name, recipe.section(name), inputs[name], SHARDS, "toy") for name in SIGNALS]
    return Graph(recipe.name, {node.name: node for node in nodes}, {"dataset": "judge"})
