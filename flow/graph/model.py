"""Nodes and edges, as data. Nothing here knows where or when a node runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stages.contract.errors import bad_settings
from stages.contract.spec import StageSettings
from stages.models.settings import ModelSource


@dataclass(frozen=True)
class Edge:
    """An input that another node makes; `folder` names a part of its files."""

    node: str
    folder: str = ""


# What an input comes from: another node, or a model from outside the store.
Source = Edge | ModelSource


@dataclass(frozen=True)
class Node:
    """One piece of work: a stage with its settings and inputs. `branch` groups nodes for people."""

    name: str
    stage: str
    settings: StageSettings
    inputs: Mapping[str, Source]
    shards: int
    branch: str

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(each.node for each in self.inputs.values() if isinstance(each, Edge))


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after what it needs, and which of them are the run's output.

    Attributes:
        files: where rows that the nodes read lie on this machine, by URI: a plan counts them.
    """

    run: str
    nodes: Mapping[str, Node]
    outputs: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)

    def downstream(self, name: str) -> tuple[str, ...]:
        """The node and everything that is made from it, in order."""
        found = {name}
        for node in self.nodes.values():
            if found.intersection(node.needs):
                found.add(node.name)
        return tuple(each for each in self.nodes if each in found)

    def upstream(self, name: str) -> tuple[str, ...]:
        """Everything that a node is made from, in order, itself left out."""
        return upstream(self.nodes, name)

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise bad_settings(f"the run has no node {name!r}", where=self.run, hint=f"it has {', '.join(self.nodes)}")
        return self.nodes[name]


def upstream(nodes: Mapping[str, Node], name: str) -> tuple[str, ...]:
    """Of nodes in order, those that one is made from, itself left out."""
    wanted = set(nodes[name].needs)
    for node in reversed([*nodes.values()]):
        if node.name in wanted:
            wanted.update(node.needs)
    return tuple(each for each in nodes if each in wanted)
