"""How many short generations ARTE's scores and answers take, before anything is spent: at most, if every draft is new.

Each is a few tokens of answer behind a question and its examples, and what these share is computed once
(docs/stages/arte.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from flow.graph import Edge, Graph, Node


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
    if node.stage == "incontext":
        size: Any = _source(graph, node, "preference").settings
        rows = _source(graph, node, "rows")
        chosen: Any = _source(graph, rows, "instructions").settings
        names = list(_task_names(graph, rows))
        ways = sum(_ways(rows.settings, name) for name in names)
        told = f"{ways * chosen.per_task:,} candidates x {size.size} questions"
        return Asked(node.name, ways * chosen.per_task * size.size, told)
    return None


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
