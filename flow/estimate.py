"""How long a node takes, before it runs: from past runs in the store, else from arithmetic.

A past run of the same kind (`flow.past`) is scaled by rows: what loading took stays, the rest grows with them.
Arithmetic counts 2 P operations for a token that is read or written and 6 P for one that is trained on, P being the
model's parameters, at the speed that `flow.cost` assumes. Generation is far from that speed (one token after the
other): a fifth of it, as measured with vLLM on a CPU. Both are orders of magnitude, for one device; a model behind a
server has no time that could be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any

from flow.asked import asked_of
from flow.cost import parameters, probe_costs, reference_rows, speed
from flow.counts import EXAMPLE_TOKENS, TEMPLATE_TOKENS, Rows, rows_of, source
from flow.graph import Graph, Node
from flow.past import Past, PastRun, alike, model_of
from stages.budget.settings import OWN
from stages.harness.settings import documents_of

_WRITING = 0.2  # of the speed of arithmetic
_START_S = 25.0  # a process, its libraries, a small model
_SMALL_S = 2.0  # stages that only rearrange rows
_SMALL = (
    "prepare", "curate", "diversity", "aggregate", "random", "reseed", "pairs", "budget", "evalset", "comparison",
    "tasks", "select", "irt", "preferences", "accuracy", "report",
)  # fmt: skip
# Stages whose rows are calls of a model.
_BY_CALLS = (
    "instructions", "responses", "rationales", "judge", "loss", "answers", "replies", "winrate", "mtbench",
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Seconds of a node on one device, and whether they are from past runs."""

    seconds: float
    past: bool


def estimates(graph: Graph, past: Past) -> dict[str, Estimate]:
    """Of every node that anything is known of, as if nothing were cached."""
    audits = [each.manifest for each in past["audit"]]
    flops = speed(audits).flops
    probes = {each.node: each.seconds for each in probe_costs(graph, audits) if each.chosen}
    found = {}
    for node in graph.nodes.values():
        seconds = _from_past(graph, node, past)
        if seconds is not None:
            found[node.name] = Estimate(seconds, True)
            continue
        seconds = probes[node.name] + _START_S if node.name in probes else _by_arithmetic(graph, node, flops)
        if seconds is not None:
            found[node.name] = Estimate(seconds, False)
    return found


def _from_past(graph: Graph, node: Node, past: Past) -> float | None:
    like = alike(graph, node, [each for each in past[node.stage] if each.manifest.ledger.total_seconds])
    if node.stage in _SMALL:
        taken = [each.manifest.ledger.total_seconds for each in like]
    elif (rows := _rows_in(graph, node)) is None:
        return None  # a whole past run says nothing of a run of another size
    else:
        taken = [_scaled(each, rows) for each in like if each.rows]
    return median(taken) if taken else None


def _scaled(past: PastRun, rows: int) -> float:
    ledger = past.manifest.ledger
    load = ledger.seconds.get("load", 0.0)
    return load + (ledger.total_seconds - load) * rows / past.rows


def _rows_in(graph: Graph, node: Node) -> int | None:
    """Rows as `PastRun.rows` counts them, at most; None where they cannot be known."""
    settings: Any = node.settings
    if node.stage in _BY_CALLS:
        asked = asked_of(graph, node)
        return asked.calls if asked else None
    if node.stage == "questions":
        drafted = asked_of(graph, node)
        return drafted.calls * settings.more if drafted else None
    if node.stage in ("incontext", "influence"):
        rows = rows_of(graph, source(graph, node, "rows"))
        return rows.scored if rows else None
    if node.stage == "harness":
        documents = documents_of(settings)
        return None if documents is None else len(node.inputs) * documents
    if node.stage == "audit":
        return int(settings.size)
    if node.stage == "evaluate":
        return _students(node) * reference_rows(graph, source(graph, node, "reference"), heldout=True)[0]
    if node.stage == "dpo":
        pairs = source(graph, node, "pairs")
        share: float = pairs.settings.heldout_share  # type: ignore[attr-defined]
        return round(_pairs(graph, pairs)[0] * (1 - share))
    return _trained_rows(graph, node)


def _by_arithmetic(graph: Graph, node: Node, flops: float) -> float | None:
    if node.stage in _SMALL:
        return _SMALL_S
    model = model_of(graph, node)
    size = parameters(model) if model else None
    operations = _OPERATIONS.get(node.stage, _asking)(graph, node)
    if size is None or operations is None:
        return None
    return _START_S + size[0] * operations / flops


def _asking(graph: Graph, node: Node) -> float | None:
    asked = asked_of(graph, node)
    if asked is None or asked.by:
        return None
    return 2 * asked.read + 2 * asked.written / _WRITING


def _training(graph: Graph, node: Node) -> float | None:
    settings: Any = node.settings
    rows, made = _trained_rows(graph, node), _made(graph, node)
    if rows is None or made is None:
        return None
    return float(6 * settings.epochs * rows * min(settings.max_tokens, made.tokens + TEMPLATE_TOKENS))


def _dpo(graph: Graph, node: Node) -> float | None:
    """Two outputs a pair, each trained on, and read by the teacher as it was."""
    settings: Any = node.settings
    pairs, tokens = _pairs(graph, source(graph, node, "pairs"))
    return float((6 + 2) * 2 * settings.epochs * pairs * min(settings.max_tokens, tokens))


def _audit(graph: Graph, node: Node) -> float:
    """Each candidate by first order and exactly, and some of them, and the base, evaluated with other roundings."""
    settings: Any = node.settings
    rows, tokens, _ = reference_rows(graph, source(graph, node, "reference"))
    whole = 2 * rows * min(tokens, settings.max_tokens)
    noisy = min(settings.noise_candidates, settings.size) * settings.noise_draws
    return (settings.size + noisy) * (whole + 6 * settings.max_tokens) + (settings.noise_draws + 4) * whole


def _evaluate(graph: Graph, node: Node) -> float:
    rows, tokens, _ = reference_rows(graph, source(graph, node, "reference"), heldout=True)
    return 2 * rows * tokens * _students(node)


def _students(node: Node) -> int:
    return sum(name.startswith("student.") for name in node.inputs)


_OPERATIONS: Mapping[str, Callable[[Graph, Node], float | None]] = {
    "warmup": _training,
    "sft": _training,
    "dpo": _dpo,
    "audit": _audit,
    "evaluate": _evaluate,
}


def _made(graph: Graph, node: Node) -> Rows | None:
    """The rows that a training reads, through a budget if need be."""
    rows = source(graph, node, "rows")
    if rows.stage == "budget":
        own = next(name for name in rows.inputs if name.startswith(OWN))
        rows = source(graph, rows, own)
    return rows_of(graph, rows)


def _trained_rows(graph: Graph, node: Node) -> int | None:
    if node.stage not in ("warmup", "sft"):
        return None
    made = _made(graph, node)
    if made is None:
        return None
    if node.stage == "warmup":
        return made.others
    wanted: int | None = node.settings.rows  # type: ignore[attr-defined]
    return min(made.scored, wanted or made.scored)


def _pairs(graph: Graph, node: Node) -> tuple[int, int]:
    """(pairs at most, tokens of one output behind its prompt)."""
    settings: Any = node.settings
    if node.stage == "preferences":
        tasks: Any = source(graph, source(graph, node, "rows"), "seeds").settings
        rows = rows_of(graph, source(graph, node, "rows"))
        of_task = {"questions": settings.question_pairs, "rationales": settings.rationale_pairs}
        count = len(tasks.tasks) * sum(value for name, value in of_task.items() if settings.optimise in (name, "both"))
        return count, (rows.tokens if rows else 0) + TEMPLATE_TOKENS
    writer, rows = _writer(graph, node)
    per_prompt = settings.most_per_prompt or (1 if settings.policy == "best_worst" else None)
    of_instructions = writer.prompts * min(comb(writer.samples, 2), per_prompt or comb(writer.samples, 2))
    prompt = writer.examples * EXAMPLE_TOKENS + TEMPLATE_TOKENS
    if settings.optimise == "instructions":
        return of_instructions, prompt + rows.instruction
    of_responses = rows.texts * min(comb(rows.each, 2), per_prompt or comb(rows.each, 2))
    if settings.optimise == "responses":
        return of_responses, rows.tokens + TEMPLATE_TOKENS
    return of_instructions + of_responses, max(prompt + rows.instruction, rows.tokens + TEMPLATE_TOKENS)


def _writer(graph: Graph, pairs: Node) -> tuple[Any, Rows]:
    """Settings of the stage that wrote the instructions which pairs are made of, and the rows of their responses."""
    signal = source(graph, source(graph, pairs, "scores"), "scores")
    responses = source(graph, signal, "rows")
    rows = rows_of(graph, responses)
    assert rows is not None
    return source(graph, source(graph, responses, "instructions"), "instructions").settings, rows
