"""What a run would do, before anything is spent: cached, partly done or to run; estimates are from past manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from flow.cost import ProbeCost, probe_costs
from flow.graph import Graph
from flow.resolve import Resolver
from flow.screen import duration
from stages.contract.catalog import spec
from stages.contract.manifest import Manifest, read_manifest
from stages.contract.store import Store

Past = dict[str, list[Manifest]]

_SAMPLE = 20  # manifests of one stage that an estimate looks at


@dataclass(frozen=True)
class PlanLine:
    """One node of a plan. `seconds` is wall-clock for one device, None where no past run tells."""

    node: str
    stage: str
    state: str  # cached | partly done | to run
    why: str
    shards: int
    seconds: float | None
    about: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def past_runs(graph: Graph, store: Store) -> Past:
    """By stage, the manifests in this store that estimates rest on; audits also for a graph without one."""
    return {stage: list(_past(store, stage)) for stage in {"audit", *(node.stage for node in graph.nodes.values())}}


def plan(graph: Graph, store: Store, past: Past) -> list[PlanLine]:
    """A line for each node, in order; nothing is written."""
    resolver = Resolver(graph, store)
    resolver.look()
    lines = []
    for node in graph.nodes.values():
        state, why, share = _state(resolver, node.name)
        seconds = None if state == "cached" else _estimate(past[node.stage], share)
        lines.append(
            PlanLine(
                node.name,
                node.stage,
                state,
                why,
                node.shards,
                0.0 if state == "cached" else seconds,
                spec(node.stage).about,
            )
        )
    return lines


def costs(graph: Graph, past: Past, lines: list[PlanLine]) -> list[ProbeCost]:
    """What each method of measuring influence would cost, for the nodes that are to run."""
    to_run = {each.node for each in lines if each.state != "cached"}
    return [each for each in probe_costs(graph, past["audit"]) if each.node in to_run]


def summary(lines: list[PlanLine]) -> str:
    """A sentence on what is there, what the rest takes, and what no past run tells of."""
    to_run = [each for each in lines if each.state != "cached"]
    known = [each.seconds for each in to_run if each.seconds is not None]
    text = f"{len(lines) - len(to_run)} of {len(lines)} nodes are cached"
    if not to_run:
        return f"{text}: there is nothing to do"
    if not known:
        return f"{text}; how long the rest takes will be known once this store has seen such stages"
    unknown = len(to_run) - len(known)
    rest = f"; the rest takes about {duration(sum(known))}, going by past runs in this store"
    return text + rest + (f" ({unknown} nodes are not in this figure)" if unknown else "")


def _state(resolver: Resolver, name: str) -> tuple[str, str, float]:
    """State, reason and the share that is still to do."""
    if name in resolver.complete:
        return "cached", "its artifact is complete", 0.0
    if name not in resolver.resolved:
        waits = [each for each in resolver.graph.nodes[name].needs if each not in resolver.complete]
        return "to run", f"needs {', '.join(waits[:3])}" + (" …" if len(waits) > 3 else ""), 1.0
    if resolver.damaged(name):
        return "to run", "objects of its artifact are missing", 1.0
    published = len(resolver.published(name))
    shards = resolver.graph.nodes[name].shards
    if published:
        return "partly done", f"{published} of {shards} shards are published", 1 - published / max(shards, published)
    return "to run", "no artifact with this fingerprint", 1.0


def _past(store: Store, stage: str) -> Iterator[Manifest]:
    keys = [
        key for key, _ in store.list(f"artifacts/{stage}/") if key.count("/") == 3 and key.endswith("manifest.json")
    ]
    for key in keys[-_SAMPLE:]:
        found = read_manifest(store, key.removesuffix("/manifest.json"))
        if found is not None:
            yield found


def _estimate(past: list[Manifest], share: float) -> float | None:
    """The median of what this stage took in this store before; settings differ, so it is an order of magnitude."""
    seconds = [each.ledger.total_seconds for each in past if each.ledger.total_seconds]
    return round(median(seconds) * share, 1) if seconds else None
