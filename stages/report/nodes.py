"""The run's nodes as the report reads them: by name, by branch and by stage; those that a recipe lacks are None."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stages.budget.settings import OWN
from stages.contract.artifact import Artifact
from stages.contract.ledger import Ledger
from stages.contract.manifest import ROWS, Manifest
from stages.evaluate.names import split_replica

Row = dict[str, Any]


@dataclass(frozen=True)
class Node:
    """One node's artifact."""

    name: str
    artifact: Artifact

    @property
    def manifest(self) -> Manifest:
        return self.artifact.manifest

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def branch(self) -> str:
        """What stands before the dot: `it1`, `tailored`, …; empty for nodes that the whole run shares."""
        return self.name.partition(".")[0] if "." in self.name else ""

    @property
    def ledger(self) -> Ledger:
        return self.manifest.ledger

    @cached_property
    def figures(self) -> Row:
        """The stage's own numbers; of several shards those of the first (counts of rows come from tables)."""
        return self.manifest.figures or next(self.artifact.shards()).figures

    def rows(self, table: str = ROWS, columns: Iterable[str] | None = None) -> list[Row]:
        """A table's rows; none where the artifact has no such table."""
        if table not in self.manifest.tables:
            return []
        found = self.artifact.table(table)
        if columns is not None:
            found = found.select([name for name in columns if name in found.column_names])
        rows: list[Row] = found.to_pylist()
        return rows

    def input_digest(self, name: str) -> str | None:
        """Digest of one of the node's own inputs."""
        found: str | None = self.manifest.inputs.get(name, {}).get("digest")
        return found


class Nodes:
    """All nodes of a run, in the order in which they depend on each other.

    Args:
        main: the branch that the run is about.
    """

    def __init__(
        self, artifacts: Iterable[tuple[str, Artifact]], edges: Iterable[tuple[str, str, str]], main: str = ""
    ) -> None:
        self.main = main
        found = {name: Node(name, artifact) for name, artifact in artifacts}
        named = [edge for edge in edges if edge[0] in found and edge[1] in found]
        self.edges = [(source, target) for source, target, _ in named]
        self._inputs = named
        # Edges come in the recipe's order: the run's own branch before those that it is compared with.
        names = dict.fromkeys([*(name for edge in self.edges for name in edge), *found])
        self._nodes = {name: found[name] for name in _ordered(list(names), self.edges)}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def get(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def of_stage(self, stage: str) -> list[Node]:
        return [node for node in self if node.stage == stage]

    def latest(self, stage: str) -> Node | None:
        """The last node of a stage, of several iterations the one that the final teacher rests on.

        A branch that the run is only compared with has such nodes too: those behind the main branch's data come first.
        """
        rows = next((name for name in (f"{self.main}.responses", f"{self.main}.rationales") if self.get(name)), "")
        own = [node for node in self.upstream(rows) if node.stage == stage]
        return next(iter(reversed(own or self.of_stage(stage))), None)

    def own_evaluation(self) -> Node | None:
        """The losses of the recipe's own student; nodes `transfer.NAME` have those of others."""
        return self.get("evaluate")

    def inputs(self, name: str) -> list[tuple[Node, str]]:
        """The nodes that a node is made from, with the names of the inputs that they are."""
        return [(self._nodes[source], given) for source, target, given in self._inputs if target == name]

    def source(self, name: str, given: str) -> Node | None:
        """The node that is one input of a node; None where the input is missing or a model from outside."""
        return next((node for node, each in self.inputs(name) if each == given), None)

    def trained_students(self) -> dict[str, Node]:
        """The training of each of the recipe's own students that have a loss, of several seeds the first one's."""
        evaluation = self.own_evaluation()
        found: dict[str, Node] = {}
        for source, given in self.inputs(evaluation.name) if evaluation else ():
            if given.startswith("student."):
                found.setdefault(split_replica(given.removeprefix("student."))[0], source)
        return found

    def on_the_way(self, main: str) -> list[dict[str, Any]]:
        """Folder and step of each teacher that the main branch's DPO published on its way; a folder is its branch's
        name too."""
        dpo = self.source(f"{main}.instructions", "teacher")
        found: list[dict[str, Any]] = dpo.figures.get("checkpoints", []) if dpo else []
        return found

    def upstream(self, name: str) -> list[Node]:
        """A node and everything that it was made from.

        Of a budget that is its own rows alone: those of other branches only told it how many to keep.
        """
        wanted = {name}
        for node in reversed(list(self)):
            if node.name in wanted:
                inputs = self.inputs(node.name)
                wanted.update(each.name for each, given in inputs if node.stage != "budget" or given.startswith(OWN))
        return [node for node in self if node.name in wanted]


def _ordered(names: list[str], edges: list[tuple[str, str]]) -> list[str]:
    """Names so that each comes after what it depends on; of several possible ones the one given first."""
    left = list(names)
    done: list[str] = []
    while left:
        waiting = {target for source, target in edges if source in left}
        ready = next((name for name in left if name not in waiting), left[0])
        left.remove(ready)
        done.append(ready)
    return done
