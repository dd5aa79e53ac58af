"""What compared methods have in common, and what each of them takes, before anything is spent.

Each method is counted as if it were alone: candidates that two of them share count for both. That is also how a budget
of device seconds counts them (docs/stages/signals.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flow.asked import asked_of
from flow.counts import rows_of, source
from flow.graph import Graph, Node
from flow.methods import SELF_INSTRUCT, TAILORED, UNTRAINED, method_of, own_method
from flow.recipe import RecipeBase


@dataclass(frozen=True)
class MethodCost:
    """Everything that one method's data come from, its final data included; students are not.

    Attributes:
        signal, update: what scores its candidates and what the scores are for; empty for an unmodified teacher.
        scored: candidates that its signal scores, at most, over all rounds.
        calls, read, written: of models that write, judge or answer (see `flow.asked`).
        seconds: of one device, for the parts that past runs or an estimate tell of; None where nothing does.
        unknown: nodes that are not in `seconds`.
    """

    method: str
    signal: str
    update: str
    scored: int
    calls: int
    read: int
    written: int
    seconds: float | None
    unknown: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def matched(recipe: RecipeBase) -> str:
    """What the students of compared branches get the same of, in a sentence; empty where nothing is compared."""
    names = [each for each in recipe.compare if each != UNTRAINED]
    if not names:
        return ""
    budget: Any = recipe.section("budget")
    sft: Any = recipe.section("sft")
    who = f"{TAILORED}, {', '.join(names)}"
    if sft.rows is not None:
        return f"equal rows: every student ({who}) trains on {sft.rows:,} (sft.rows)"
    what = {
        "rows": f"equal rows: every student ({who}) trains on as many as the branch with the fewest usable ones has, "
        "less those too long for sft.max_tokens",
        "tokens": f"equal tokens: every student ({who}) trains on as many response tokens as the branch with the "
        "fewest has",
        "device_seconds": f"equal device seconds: every student ({who}) trains on what the cheapest branch's time, "
        "candidates, scores and teacher training included, pays for",
        "none": f"nothing is matched: every student ({who}) trains on all that its branch has",
    }
    return f"{what[budget.match]} (budget.match: {budget.match})"


def method_costs(recipe: RecipeBase, graph: Graph, seconds: Mapping[str, float]) -> list[MethodCost]:
    """A line for each branch that has data of its own.

    Args:
        seconds: an estimate for each node that has one, as if nothing were cached.
    """
    found = []
    own = own_method(recipe.method, recipe.signal, recipe.update)
    for branch in dict.fromkeys((TAILORED, SELF_INSTRUCT, *recipe.compare)):
        final = _final(graph, branch)
        if final is None:
            continue
        method = own if branch == TAILORED else method_of(branch, own)
        nodes = [graph.nodes[name] for name in graph.upstream(final.name)] + [final]
        calls = [each for each in (asked_of(graph, node) for node in nodes) if each is not None]
        known = [seconds[node.name] for node in nodes if node.name in seconds]
        found.append(
            MethodCost(
                branch,
                method.signal if method else "",
                method.update if method else "",
                sum(_scored(graph, node) for node in nodes if method and node.stage == method.signal),
                sum(each.calls for each in calls),
                sum(each.read for each in calls),
                sum(each.written for each in calls),
                sum(known) if known else None,
                len(nodes) - len(known),
            )
        )
    return found


def _final(graph: Graph, branch: str) -> Node | None:
    """The node of a branch's final data."""
    names = (f"{branch}.{stage}" for stage in ("responses", "rationales"))
    return next((graph.nodes[name] for name in names if name in graph.nodes), None)


def _scored(graph: Graph, signal: Node) -> int:
    rows = rows_of(graph, source(graph, signal, "rows"))
    return rows.scored if rows else 0
