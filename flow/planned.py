"""A plan as a whole: nodes, calls, what measuring influence takes, and compared methods at their budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from flow.asked import Asked, asked, uncounted
from flow.compared import MethodCost, matched, method_costs
from flow.cost import METHODS, ProbeCost
from flow.estimate import estimates
from flow.past import past_runs
from flow.plan import PlanLine, costs, plan, summary
from flow.screen import duration
from flow.session import Session


class ShowTable(Protocol):
    """What prints a table: title, column heads, rows of cells."""

    def __call__(self, title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None: ...


@dataclass(frozen=True)
class Planned:
    """Everything that a plan tells.

    Attributes:
        uncounted: nodes that ask a model nobody can say how often, and what would tell.
        matched: empty where nothing is compared.
    """

    run: str
    store: str
    lines: list[PlanLine]
    influence: list[ProbeCost]
    calls: list[Asked]
    uncounted: dict[str, str]
    methods: list[MethodCost]
    matched: str

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "store": self.store,
            "nodes": [each.as_json() for each in self.lines],
            "influence": [each.as_json() for each in self.influence],
            "calls": [each.as_json() for each in self.calls],
            "uncounted": self.uncounted,
            "matched": self.matched,
            "methods": [each.as_json() for each in self.methods],
        }


def planned(session: Session) -> Planned:
    """The plan of a recipe in its store; nothing is written."""
    graph = session.graph
    past = past_runs(graph, session.store)
    known = estimates(graph, past)
    lines = plan(graph, session.store, known)
    open_nodes = {each.node for each in lines if each.state != "cached"}
    return Planned(
        graph.run,
        session.store.uri,
        lines,
        costs(graph, past, lines, known),
        [each for each in asked(graph) if each.node in open_nodes],
        {node: why for node, why in uncounted(graph).items() if node in open_nodes},
        method_costs(session.recipe, graph, {name: each.seconds for name, each in known.items()}),
        matched(session.recipe),
    )


def show(found: Planned, table: ShowTable) -> None:
    """Prints a plan for people."""
    rows = [(each.node, each.state, each.why, str(each.shards), _estimate(each)) for each in found.lines]
    table(f"{found.run} in {found.store}", ("node", "state", "why", "shards", "estimate"), rows)
    print(summary(found.lines))
    if found.calls or found.uncounted:
        heads = ("node", "calls", "tokens read, about", "written, at most", "counted as", "server's model")
        counted = [
            (each.node, _number(each.calls), _number(each.read), _number(each.written), each.counted, each.by)
            for each in found.calls
        ]
        counted += [(node, "unknown", "", "", why, "") for node, why in found.uncounted.items()]
        table("what models are asked, at most", heads, counted)
    _show_influence(found, table)
    if found.calls:
        titles = ("method", "signal", "for", "scores", "calls", "tokens read", "written", "time")
        table("what each method takes, as if alone, at most", titles, map(_method, found.methods))
    if found.matched:
        print(found.matched)


def _method(cost: MethodCost) -> tuple[str, ...]:
    numbers = (cost.scored, cost.calls, cost.read, cost.written)
    return (cost.method, cost.signal or "none", cost.update or "-", *map(_number, numbers), _time(cost))


def _show_influence(found: Planned, table: ShowTable) -> None:
    cells: dict[tuple[str, int], list[str]] = {}
    for each in found.influence:
        generation = "?" if each.generation is None else duration(each.generation)
        first = [str(each.responses), f"{each.candidates:,}", generation]
        row = cells.setdefault((each.node, each.responses), first)
        row.append(duration(each.seconds) + (" *" if each.chosen else ""))
    if cells:
        columns = ("node", "responses", "scores", "generating them", *METHODS)
        table("measuring influence, at most", columns, [(node, *row) for (node, _), row in cells.items()])
        print(f"* as the recipe says; on one device, assuming {found.influence[0].assumed}")
    elif any(each.stage == "influence" and each.state != "cached" for each in found.lines):
        print("what measuring influence will cost is known once the student is here: its name does not say its size")


def _estimate(line: PlanLine) -> str:
    if line.seconds is None:
        return "?"
    return duration(line.seconds) if line.past or line.state == "cached" else f"~{duration(line.seconds)}"


def _time(cost: MethodCost) -> str:
    """Of one device; what nothing tells of is left out."""
    if cost.seconds is None:
        return "?"
    return f"{'over' if cost.unknown else 'about'} {duration(cost.seconds)}"


def _number(value: int) -> str:
    """In full up to a million, then as 1.2M or 3.4G: nobody counts the rest."""
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if value >= size:
            return f"{value / size:,.1f}{unit}"
    return f"{value:,}"
