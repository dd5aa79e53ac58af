"""How many generations scores, answers and judgements take, before anything is spent: at most, if every draft is new.

A judge's are requests to its server, where it has one. ARTE's are short: a few tokens of answer behind a question and
its examples, and what these share is computed once (docs/stages/arte.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from flow.graph import Edge, Graph, Node
from flow.sources import count_rows
from stages.evaluate.names import split_replica


@dataclass(frozen=True)
class Asked:
    """Generations of one node and where the number comes from."""

    node: str
    generations: int
    counted: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def asked(graph: Graph) -> list[Asked]:
    """The nodes that ask students questions; without those whose number of questions only a file knows."""
    return [each for node in graph.nodes.values() if (each := _of(graph, node)) is not None]


def _of(graph: Graph, node: Node) -> Asked | None:
    settings: Any = node.settings
    if node.stage == "answers":
        tasks: Any = _source(graph, node, "tasks").settings
        questions = tasks.validation if settings.role == "validation" else tasks.test
        if questions is None:
            return None
        count, shots = len(tasks.tasks), len(settings.shots)
        told = f"{count} tasks x {questions} questions x {shots} numbers of examples"
        return Asked(node.name, count * questions * shots, told)
    if node.stage in ("replies", "winrate", "mtbench"):
        return _judged(graph, node)
    if node.stage == "incontext":
        size: Any = _source(graph, node, "preference").settings
        rows = _source(graph, node, "rows")
        chosen: Any = _source(graph, rows, "instructions").settings
        names = list(_task_names(graph, rows))
        ways = sum(_ways(rows.settings, name) for name in names)
        told = f"{ways * chosen.per_task:,} candidates x {size.size} questions"
        return Asked(node.name, ways * chosen.per_task * size.size, told)
    return None


def _judged(graph: Graph, node: Node) -> Asked | None:
    """Replies to the questions of a benchmark, or a judge's verdicts or grades of them."""
    if node.stage == "replies":
        questions = _questions(graph, _source(graph, node, "questions"))
        return None if questions is None else Asked(node.name, math.prod(questions), f"{_told(*questions)}")
    replies = [name for name in node.inputs if name.startswith("replies.")]
    questions = _questions(graph, _source(graph, _source(graph, node, replies[0]), "questions"))
    if questions is None:
        return None
    if node.stage == "mtbench":
        return Asked(node.name, len(replies) * math.prod(questions), f"{len(replies)} students x {_told(*questions)}")
    settings: Any = node.settings
    others = sum(split_replica(name.removeprefix("replies."))[0] != settings.baseline for name in replies)
    told = f"{others} students against {settings.baseline} x {questions[0]} questions x 2 orders"
    return Asked(node.name, 2 * others * questions[0], told)


def _questions(graph: Graph, node: Node) -> tuple[int, int] | None:
    """(questions, turns of each), where they can be counted without a network."""
    settings: Any = node.settings
    if settings.which == "mtbench":
        rows, turns = count_rows(settings.mtbench), 2
    elif settings.winrate is not None:
        rows, turns = count_rows(settings.winrate), 1
    else:
        prepare: Any = _source(graph, node, "reference").settings
        every, turns = count_rows(prepare.reference), 1
        rows = None if every is None else every - round(every * prepare.probe_share)
    limits = [each for each in (rows, settings.limit) if each is not None]
    return (min(limits), turns) if limits else None


def _told(questions: int, turns: int) -> str:
    return f"{questions} questions" + (f" x {turns} turns" if turns > 1 else "")


def _task_names(graph: Graph, rows: Node) -> Iterator[str]:
    tasks: Any = _source(graph, rows, "seeds").settings
    yield from tasks.tasks


def _ways(settings: Any, task: str) -> int:
    """Rationales of each question."""
    if settings.style == "naive":
        return int(settings.samples)
    prompts = settings.of_task(task)
    return len(prompts.reasoning) if prompts else 0


def _source(graph: Graph, node: Node, name: str) -> Node:
    edge = node.inputs[name]
    assert isinstance(edge, Edge)
    return graph.nodes[edge.node]
