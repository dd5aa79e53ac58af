"""What a run would do, before anything is spent: cached, partly done or to run, and about how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from flow.cost import ProbeCost, probe_costs
from flow.counts import rows_of, source
from flow.estimate import Estimate
from flow.graph import Graph
from flow.past import Past
from flow.resolve import Resolver
from flow.screen import duration
from stages.contract.catalog import spec
from stages.contract.store import Store


@dataclass(frozen=True)
class PlanLine:
    """One node of a plan.

    Attributes:
        seconds: wall-clock for one device; None where nothing tells.
        past: whether that is from past runs in this store, not from arithmetic (`flow.estimate`).
    """

    node: str
    stage: str
    state: str  # cached | partly done | to run
    why: str
    shards: int
    seconds: float | None
    past: bool
    about: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(graph: Graph, store: Store, known: Mapping[str, Estimate]) -> list[PlanLine]:
    """A line for each node, in order; nothing is written. `known` are estimates as if nothing were cached."""
    resolver = Resolver(graph, store)
    resolver.look()
    lines = []
    for node in graph.nodes.values():
        state, why, share = _state(resolver, node.name)
        found = known.get(node.name)
        seconds = round(found.seconds * share, 1) if found else None
        seconds = 0.0 if state == "cached" else seconds
        past = found.past if found else False
        lines.append(PlanLine(node.name, node.stage, state, why, node.shards, seconds, past, spec(node.stage).about))
    return lines


def costs(graph: Graph, past: Past, lines: list[PlanLine], known: Mapping[str, Estimate]) -> list[ProbeCost]:
    """What each method of measuring influence would cost, for the nodes that are to run."""
    to_run = {each.node for each in lines if each.state != "cached"}

    def generation(cost: ProbeCost) -> float | None:
        responses = source(graph, graph.nodes[cost.node], "rows")
        made = rows_of(graph, responses)
        if made is None or responses.name not in known:
            return None
        if cost.responses == made.each and responses.name not in to_run:
            return 0.0  # they are here
        return known[responses.name].seconds * (cost.candidates + made.others) / made.made

    found = probe_costs(graph, [each.manifest for each in past["audit"]])
    return [replace(each, generation=generation(each)) for each in found if each.node in to_run]


def summary(lines: list[PlanLine]) -> str:
    """A sentence on what is there, what the rest takes, and what nothing tells of."""
    to_run = [each for each in lines if each.state != "cached"]
    known = [each for each in to_run if each.seconds is not None]
    text = f"{len(lines) - len(to_run)} of {len(lines)} nodes are cached"
    if not to_run:
        return f"{text}: there is nothing to do"
    if not known:
        return f"{text}; how long the rest takes will be known once this store has seen such stages"
    unknown, guessed = len(to_run) - len(known), sum(not each.past for each in known)
    going_by = "past runs in this store"
    if guessed:
        going_by = f"{going_by} and, for {guessed} nodes, by arithmetic (~)" if guessed < len(known) else "arithmetic"
    seconds = sum(each.seconds or 0.0 for each in known)
    rest = f"; the rest takes about {duration(seconds)}, going by {going_by}"
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
