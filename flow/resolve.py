"""Where a node's artifact lies: known once everything that it is made from is complete.

The same rules serve a plan, a local run and the controller. Nothing is remembered anywhere but in the store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flow.graph import Edge, Graph, Node
from flow.sources import model_digest
from stages.contract.catalog import spec
from stages.contract.fingerprint import artifact_key, fingerprint
from stages.contract.manifest import Layout, Manifest, fix_layout, intact, published_shards, read_manifest
from stages.contract.store import Store
from stages.contract.task import ArtifactInput, Input, ModelInput, Shards, Task

# Settings of how much a stage computes at once, with the least that makes sense: halved after running out of memory.
_AT_ONCE = {"micro_batch": 1, "pack_tokens": 64}


@dataclass(frozen=True)
class Resolved:
    """A node whose inputs are complete: its fingerprint, its place in the store, its inputs as a task names them."""

    fingerprint: str
    key: str
    inputs: Mapping[str, Input]


class Resolver:
    """Follows one graph through one store, remembering only what cannot change (complete artifacts).

    Attributes:
        complete: the manifests of the nodes that are done.
        resolved: fingerprint and place of every node whose inputs are complete.
    """

    def __init__(self, graph: Graph, store: Store) -> None:
        self.graph = graph
        self.store = store
        self.complete: dict[str, Manifest] = {}
        self.resolved: dict[str, Resolved] = {}
        self._models: dict[str, str] = {}
        self._damaged: set[str] = set()

    def look(self, only: Collection[str] | None = None, watched: Collection[str] = ()) -> None:
        """Looks at the store again: which artifacts are complete, which nodes can be resolved.

        Args:
            only: the open nodes to look at, besides those that are resolved just now; all where not given.
            watched: nodes that were made under the caller's eyes: their objects are not counted once more.
        """
        for node in self.graph.nodes.values():
            if node.name in self.complete or any(each not in self.complete for each in node.needs):
                continue
            if node.name not in self.resolved:
                self.resolved[node.name] = self._resolve(node)
            elif only is not None and node.name not in only:
                continue
            key = self.resolved[node.name].key
            manifest = read_manifest(self.store, key)
            self._damaged.discard(node.name)
            if manifest is None:
                continue
            if node.name in watched or intact(self.store, key, manifest):
                self.complete[node.name] = manifest
            else:
                self._damaged.add(node.name)

    def damaged(self, name: str) -> bool:
        """Whether a node, when it was looked at, had a manifest but not every object that it lists."""
        return name in self._damaged

    def published(self, name: str) -> frozenset[int]:
        return frozenset(published_shards(self.store, self.resolved[name].key))

    def layout(self, name: str) -> Layout:
        """How this node's rows are split: as an earlier attempt began it, else as the recipe says."""
        node = self.graph.nodes[name]
        chunk_rows = getattr(node.settings, "chunk_rows", 64)
        return fix_layout(self.store, self.resolved[name].key, Layout(shards=node.shards, chunk_rows=chunk_rows))

    def task(self, name: str, attempt: int, shards: tuple[int, ...], halvings: int = 0) -> Task:
        """The task of one attempt; each halving halves what is computed at once, which output does not depend on."""
        node, found = self.graph.nodes[name], self.resolved[name]
        settings = node.settings.model_dump(mode="json")
        for size, least in _AT_ONCE.items():
            if size in settings and halvings:
                settings[size] = max(least, settings[size] >> halvings)
        return Task(
            run=self.graph.run,
            node=name,
            stage=node.stage,
            attempt=attempt,
            settings=settings,
            inputs=dict(found.inputs),
            output=found.key,
            fingerprint=found.fingerprint,
            shards=Shards(count=self.layout(name).shards, indices=shards),
        )

    def summary(self) -> dict[str, Any]:
        """What `runs/RUN/resolved.json` holds: every complete node's artifact and where its inputs came from."""
        nodes = {}
        for name, manifest in self.complete.items():
            node = self.graph.nodes[name]
            inputs = {
                each: {"node": source.node} if isinstance(source, Edge) else {"model": source.model_dump(mode="json")}
                for each, source in node.inputs.items()
            }
            nodes[name] = {
                "stage": node.stage,
                "key": self.resolved[name].key,
                "digest": manifest.digest,
                "inputs": inputs,
            }
        return {"run": self.graph.run, "nodes": nodes, "outputs": dict(self.graph.outputs)}

    def _resolve(self, node: Node) -> Resolved:
        inputs: dict[str, Input] = {}
        for name, source in node.inputs.items():
            if isinstance(source, Edge):
                manifest = self.complete[source.node]
                inputs[name] = ArtifactInput(
                    key=self.resolved[source.node].key, digest=manifest.digest, folder=source.folder
                )
            else:
                identity = source.model_dump_json()
                if identity not in self._models:
                    self._models[identity] = model_digest(source, self.store)
                inputs[name] = ModelInput(source=source.model_dump(mode="json"), digest=self._models[identity])
        mark = fingerprint(spec(node.stage), node.settings, {name: each.identity for name, each in inputs.items()})
        return Resolved(mark, artifact_key(node.stage, mark), inputs)
