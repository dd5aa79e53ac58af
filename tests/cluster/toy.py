"""`python -m tests.cluster.toy`: the controller as it is, for recipes that may ask for the graph of tests/toy.

A recipe whose `about` is `toy {JSON}` becomes `numbers → lines → again`, whose pods start in a second and fail as they
are told; one that is about `toy-signals` becomes the graph of `signals`. All else (observing, deciding, rendering,
storing) is the controller's own. The test image starts this.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from flow.graph import Edge, Graph, Node, build
from flow.recipe import RecipeBase
from stages.contract.catalog import spec
from tests.cluster.signals import signals_graph

MARK = "toy "
SIGNALS_MARK = "toy-signals"
NUMBERS, LINES = "tests.toy.numbers", "tests.toy.lines"


def toy_graph(run: str, *, count: int = 48, shards: int = 1, **lines: Any) -> Graph:
    """`count` numbers, multiplied in chunks of four by `lines` (its settings) in so many shards, and once more."""
    first = spec(LINES).settings.model_validate(lines)
    second = spec(LINES).settings()
    nodes = (
        Node("numbers", NUMBERS, spec(NUMBERS).settings.model_validate({"count": count}), {}, 1, "toy"),
        Node("lines", LINES, first, {"rows": Edge("numbers")}, shards, "toy"),
        Node("again", LINES, second, {"rows": Edge("lines")}, 1, "toy"),
    )
    return Graph(run, {node.name: node for node in nodes}, {"dataset": "again"})


def toy_or_real(recipe: RecipeBase) -> Graph:
    if recipe.about.startswith(MARK):
        return toy_graph(recipe.name, **json.loads(recipe.about.removeprefix(MARK)))
    return signals_graph(recipe) if recipe.about == SIGNALS_MARK else build(recipe)


if __name__ == "__main__":
    from k8s.__main__ import main

    sys.exit(main(build=toy_or_real))
