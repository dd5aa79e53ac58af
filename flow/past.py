"""Past runs in the store that tell how long a node takes: those that did the same kind of work with as large a model.

A row takes as long as it did when the model is as large, the settings that its time depends on are equal, and as much
is computed for it. What machine a past run had, nothing tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from flow.cost import parameters
from flow.counts import source
from flow.graph import Edge, Graph, Node
from flow.sources import count_rows
from stages.contract.manifest import Manifest, read_manifest
from stages.contract.store import Store
from stages.models.settings import ModelSource

_SAMPLE = 20  # manifests of one stage that an estimate looks at
_READERS = 8
_ALIKE = 0.1  # by which sizes may differ: a name's 8B and a config's 8.03B, rows that were dropped
_MODELS = ("student", "teacher", "judge", "model", "checkpoint")
# Settings that a row's time depends on, of the stages that have them.
_OF_A_ROW = (
    "method", "epochs", "max_tokens", "sampling.max_tokens", "reasoning_tokens", "shots", "engine.kind", "engine.model",
    "backend", "tasks", "fewshot", "per_side", "gradient_groups", "corrected_groups", "forward_dtype", "products",
)  # fmt: skip


@dataclass(frozen=True)
class PastRun:
    """A node that is done.

    Attributes:
        model: what it worked with, or what that was trained from; None where it takes none, or nothing tells.
        against: the size of the set that each of its candidates was measured on; None where there is none.
    """

    manifest: Manifest
    model: ModelSource | None = None
    against: float | None = None

    @property
    def rows(self) -> int:
        """What `flow.estimate` scales by: rows as its ledger counts them, and of replies each turn."""
        manifest = self.manifest
        return manifest.tables.get("rows", 0) if manifest.stage == "replies" else manifest.ledger.rows_in


Past = dict[str, list[PastRun]]
Read = Callable[[str], Manifest | None]  # the manifest of an artifact by its key, each read once


def past_runs(graph: Graph, store: Store) -> Past:
    """By stage, what estimates rest on in this store; audits also for a graph without one."""
    read: Read = cache(lambda key: read_manifest(store, key))
    stages = {"audit", *(node.stage for node in graph.nodes.values())}
    return {
        stage: [PastRun(each, _model_then(each, read), _against_then(each, read)) for each in _past(store, stage, read)]
        for stage in stages
    }


def alike(graph: Graph, node: Node, past: Iterable[PastRun]) -> list[PastRun]:
    """The past runs of a node's stage of which a row took as long as one of the node will."""
    now, model, against = node.settings.model_dump(mode="json"), model_of(graph, node), _against(graph, node)

    def like(run: PastRun) -> bool:
        if any(_value(now, name) != _value(run.manifest.settings, name) for name in _OF_A_ROW):
            return False
        if model is not None and (run.model is None or not _as_large(model, run.model)):
            return False
        return against is None or (run.against is not None and _close(against, run.against))

    return [run for run in past if like(run)]


def model_of(graph: Graph, node: Node) -> ModelSource | None:
    """The model that a node works with: that which it was trained from, if it was."""
    given = _first_model(node.inputs)
    while isinstance(given, Edge):
        given = _first_model(graph.nodes[given.node].inputs)
    return given


def _first_model(inputs: Mapping[str, Any]) -> Any:
    names = [*_MODELS, *(name for name in inputs if name.startswith("student."))]
    return next((inputs[name] for name in names if name in inputs), None)


def _model_then(manifest: Manifest, read: Read) -> ModelSource | None:
    given = _first_model(manifest.inputs)
    while given is not None and given["kind"] == "artifact":
        made = read(given["key"])
        given = None if made is None else _first_model(made.inputs)
    return None if given is None else ModelSource.model_validate(given["source"])


def _against(graph: Graph, node: Node) -> float | None:
    settings: Any
    if node.stage in ("influence", "audit"):
        settings = source(graph, node, "reference").settings
        rows = count_rows(settings.reference, graph.files)
        return None if rows is None else float(rows * settings.probe_share)
    if node.stage == "incontext":
        settings = source(graph, node, "preference").settings
        return float(settings.size)
    return None


def _against_then(manifest: Manifest, read: Read) -> float | None:
    name = {"influence": "reference", "audit": "reference", "incontext": "preference"}.get(manifest.stage)
    made = read(manifest.inputs[name]["key"]) if name in manifest.inputs else None
    if made is None:
        return None
    if name == "preference":
        return float(made.settings["size"])
    return float((made.tables["probe"] + made.tables["heldout"]) * made.settings["probe_share"])


def _value(settings: Mapping[str, Any], name: str) -> Any:
    section, _, key = name.rpartition(".")
    return (settings.get(section) or {}).get(key) if section else settings.get(key)


def _as_large(one: ModelSource, other: ModelSource) -> bool:
    if (one.model, one.drop_layers) == (other.model, other.drop_layers):
        return True
    sizes = parameters(one), parameters(other)
    return sizes[0] is not None and sizes[1] is not None and _close(sizes[0][0], sizes[1][0])


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= _ALIKE * max(one, other)


def _past(store: Store, stage: str, read: Read) -> list[Manifest]:
    """The last to be finished; keys are fingerprints, so all manifests must be read to know which these are."""
    keys = [
        key for key, _ in store.list(f"artifacts/{stage}/") if key.count("/") == 3 and key.endswith("manifest.json")
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(read, (key.removesuffix("/manifest.json") for key in keys))
        return sorted((each for each in found if each is not None), key=lambda each: each.finished)[-_SAMPLE:]
