"""Collects nodes one by one; each method of `flow.graph` adds its own through it."""

from __future__ import annotations

from collections.abc import Mapping

from flow.graph.model import Edge, Node, Source
from flow.recipe import RecipeBase
from stages.contract.errors import bad_settings
from stages.contract.spec import StageSettings

# What every part of the graph starts from.
PREPARE = Edge("prepare")


class Builder:
    """The nodes so far, in an order in which each comes after what it needs."""

    def __init__(self, recipe: RecipeBase) -> None:
        self.recipe = recipe
        self.nodes: dict[str, Node] = {}

    def add(self, name: str, stage: str, inputs: Mapping[str, Source], settings: StageSettings | None = None) -> Edge:
        """Adds a node, with its section of the recipe unless other settings are given; returns an edge to it."""
        if name in self.nodes:
            raise bad_settings(f"two nodes would be called {name!r}", where=self.recipe.name)
        node = self._node(name, stage, inputs, settings)
        self.nodes[name] = node
        return Edge(name)

    def share(self, name: str, stage: str, inputs: Mapping[str, Source], settings: StageSettings | None = None) -> Edge:
        """An edge to the node that does this very work, whatever its name; one is added where there is none."""
        wanted = self._node(name, stage, inputs, settings)
        for node in self.nodes.values():
            if (node.stage, node.settings, node.inputs) == (wanted.stage, wanted.settings, wanted.inputs):
                return Edge(node.name)
        return self.add(name, stage, inputs, settings)

    def _node(self, name: str, stage: str, inputs: Mapping[str, Source], settings: StageSettings | None) -> Node:
        chosen = settings if settings is not None else self.recipe.section(stage)
        branch = name.partition(".")[0] if "." in name else "run"
        return Node(name, stage, chosen, dict(inputs), self.recipe.run.shards.get(stage, 1), branch)
