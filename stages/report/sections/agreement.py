"""Do signals agree on which candidates are good?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.correlation import ranks, spearman
from stages.report.draw.charts import scatter
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import count, fixed

TITLE = "Do the signals agree?"
SIGNALS = ("influence", "incontext", "judge", "loss", "random")
_COLUMNS = ("response_id", "instruction_id", "prompt_id", "score")
_MOST_FIGURES = 4


@dataclass(frozen=True)
class _Scores:
    """One signal's scores of responses and of instructions (means), each with its prompt."""

    responses: Mapping[str, tuple[float, str]]
    instructions: Mapping[str, tuple[float, str]]


def section(nodes: Nodes) -> Section:
    groups = [group for group in _on_the_same_candidates(nodes) if len(group) > 1]
    if not groups:
        return left_out(
            "agreement", TITLE, "No candidates of this run were scored by two signals (signals: [judge, random], say)."
        )
    rows: list[list[str]] = []
    blocks: list[Figure | Table] = []
    numbers: list[dict[str, Any]] = []
    for group in groups:
        scores = {node.name: _scores(node) for node in group}
        for first, second in combinations(group, 2):
            of_instructions = _compared(scores[first.name].instructions, scores[second.name].instructions)
            of_responses = _compared(scores[first.name].responses, scores[second.name].responses)
            rows.append(
                [
                    f"{first.name}, {second.name}",
                    count(of_instructions.candidates),
                    _shown(of_instructions.interval),
                    count(of_responses.candidates),
                    _shown(of_responses.interval),
                ]
            )
            numbers.append(
                {
                    "first": first.name,
                    "second": second.name,
                    "instructions": _number(of_instructions),
                    "responses": _number(of_responses),
                }
            )
            # Everything against the run's own signal first: that is what its pairs rest on.
            if len(blocks) < _MOST_FIGURES and of_instructions.interval is not None:
                blocks.append(_figure(first, second, of_instructions))
    table = Table(
        "Spearman correlation of two signals, with 95 % intervals (prompts resampled)",
        ["signals", "instructions", "correlation of means", "responses", "correlation"],
        rows,
        numeric=range(1, 5),
    )
    text = [
        "The same candidates scored by several signals. 1 is the same order, 0 none in common; the control (random) "
        "shows what chance looks like here. Two signals that are noisy themselves cannot agree much: see how reliable "
        "the scores are.",
        *(_said(each) for each in numbers),
    ]
    return Section("agreement", TITLE, text, [*blocks, table], {"correlations": numbers})


def _on_the_same_candidates(nodes: Nodes) -> list[list[Node]]:
    """Signal nodes by what they scored, in the run's order; those of a branch's own signal once."""
    groups: defaultdict[str, dict[str, Node]] = defaultdict(dict)
    for node in nodes:
        digest = node.input_digest("rows")
        if node.stage in SIGNALS and digest is not None:
            groups[digest].setdefault(node.manifest.digest, node)
    return [sorted(group.values(), key=lambda node: SIGNALS.index(node.stage)) for group in groups.values()]


def _scores(node: Node) -> _Scores:
    rows = [row for row in node.rows(columns=_COLUMNS) if row["score"] is not None]
    by_instruction: defaultdict[str, list[float]] = defaultdict(list)
    prompt_of = {row["instruction_id"]: row["prompt_id"] for row in rows}
    for row in rows:
        by_instruction[row["instruction_id"]].append(row["score"])
    return _Scores(
        {row["response_id"]: (row["score"], row["prompt_id"]) for row in rows},
        {name: (fmean(values), prompt_of[name]) for name, values in by_instruction.items()},
    )


@dataclass(frozen=True)
class _Compared:
    first: Sequence[float]
    second: Sequence[float]
    interval: Interval | None

    @property
    def candidates(self) -> int:
        return len(self.first)


def _compared(first: Mapping[str, tuple[float, str]], second: Mapping[str, tuple[float, str]]) -> _Compared:
    """What both have scored."""
    shared = sorted(first.keys() & second.keys())
    x, y = [first[name][0] for name in shared], [second[name][0] for name in shared]
    return _Compared(x, y, spearman(x, y, [first[name][1] for name in shared]))


def _figure(first: Node, second: Node, found: _Compared) -> Figure:
    name = f"agreement-{first.name}-{second.name}".replace(".", "-")
    drawing = scatter(
        list(ranks(found.first)),
        list(ranks(found.second)),
        x_label=f"rank by {first.stage} (%)",
        y_label=f"rank by {second.stage} (%)",
        title=f"Ranks of instructions by {first.name} and {second.name}",
    )
    return Figure(name, drawing, f"Each point is an instruction: its rank among all by {first.name} and {second.name}.")


def _shown(interval: Interval | None) -> str:
    if interval is None:
        return "unknown"
    return f"{fixed(interval.value, 2)} ({fixed(interval.low, 2)} … {fixed(interval.high, 2)})"


def _number(found: _Compared) -> dict[str, Any]:
    return {"candidates": found.candidates, "spearman": asdict(found.interval) if found.interval else None}


def _said(each: Mapping[str, Any]) -> str:
    found = each["instructions"]["spearman"]
    names = f"{each['first']} and {each['second']}"
    if found is None:
        return f"{names}: no correlation can be measured (too few prompts, or scores that do not vary)."
    if found["low"] <= 0 <= found["high"]:
        return f"{names}: no agreement that could be told from chance ({_shown(Interval(**found))})."
    return f"{names} {'agree' if found['value'] > 0 else 'disagree'}: {_shown(Interval(**found))}."
