"""What models are asked, before anything is spent: calls of the teacher, of judges and students, and their tokens.

A judge's calls are requests to its server, where it has one. ARTE's are short: a few tokens of answer behind a question
and its examples, and what these share is computed, and counted, once where the engine caches it (docs/stages/arte.md).
Calls and written tokens are upper bounds, read tokens estimates (`flow.counts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flow import counts
from flow.counts import EXAMPLE_TOKENS, QUESTION_TOKENS, SHOWN_RATIONALE_TOKENS, TEMPLATE_TOKENS, rows_of, source
from flow.graph import Graph, Node
from flow.sources import count_rows
from stages.evaluate.names import split_replica
from stages.harness.settings import documents_of

_ANSWER_TOKENS = 16  # of an answer that stands alone
_CHOICES = 4  # of a document
_NOT_HERE = "its questions are in no file of this machine; evalset.limit says how many at most"
# What would tell how much is asked, where `asked_of` knows nothing.
_UNCOUNTED = {
    "answers": "test questions are all others that the tasks' sources have; tasks.test says how many",
    "replies": _NOT_HERE,
    "winrate": _NOT_HERE,
    "mtbench": _NOT_HERE,
    "harness": "only lm-eval knows how many documents its tasks have",
}


@dataclass(frozen=True)
class Asked:
    """Calls of one node, tokens that the model reads and writes for them, and where the number of calls comes from.

    Attributes:
        by: the server's model; empty where a model of the recipe does it on the run's own devices.
    """

    node: str
    calls: int
    read: int
    written: int
    counted: str
    by: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def asked(graph: Graph) -> list[Asked]:
    """The nodes that ask a model; without those of `uncounted`."""
    return [each for node in graph.nodes.values() if (each := asked_of(graph, node)) is not None]


def uncounted(graph: Graph) -> dict[str, str]:
    """The nodes that ask a model nobody can say how often, and what would tell."""
    asks = [node for node in graph.nodes.values() if node.stage in _COUNTED]
    return {node.name: _UNCOUNTED[node.stage] for node in asks if asked_of(graph, node) is None}


def asked_of(graph: Graph, node: Node) -> Asked | None:
    """What one node asks; None where it asks nothing, or nobody can know how much."""
    count = _COUNTED.get(node.stage)
    return count(graph, node) if count else None


def _instructions(graph: Graph, node: Node) -> Asked:
    settings: Any = node.settings
    calls = settings.prompts * settings.samples
    prompt = counts.tokens(settings.template + settings.prefill) + settings.examples * EXAMPLE_TOKENS + TEMPLATE_TOKENS
    return _asked(node, calls, calls * prompt, f"{settings.prompts:,} prompts x {settings.samples} outputs")


def _questions(graph: Graph, node: Node) -> Asked:
    settings: Any = node.settings
    tasks: Any = source(graph, node, "seeds").settings
    calls = len(tasks.tasks) * settings.prompts
    prompt = counts.tokens(settings.template + settings.prefill) + settings.examples * QUESTION_TOKENS + TEMPLATE_TOKENS
    return _asked(node, calls, calls * prompt, f"{len(tasks.tasks)} tasks x {settings.prompts:,} prompts")


def _responses(graph: Graph, node: Node) -> Asked:
    rows = rows_of(graph, node)
    assert rows is not None
    settings: Any = node.settings
    shots = getattr(settings, "shots", 0) * (QUESTION_TOKENS + SHOWN_RATIONALE_TOKENS)
    told = f"{rows.texts:,} {'instructions' if node.stage == 'responses' else 'questions'} x {rows.each}"
    told += f" and {rows.others:,} for the warm-up" if rows.others else ""
    return _asked(node, rows.made, rows.made * (rows.instruction + shots + TEMPLATE_TOKENS), told)


def _judge(graph: Graph, node: Node) -> Asked | None:
    rows = rows_of(graph, source(graph, node, "rows"))
    assert rows is not None
    settings: Any = node.settings
    calls = rows.scored * settings.samples
    prompt = counts.tokens(settings.template + settings.prefill) + rows.tokens + TEMPLATE_TOKENS
    return _asked(node, calls, calls * prompt, f"{rows.scored:,} candidates x {settings.samples} ratings")


def _loss(graph: Graph, node: Node) -> Asked:
    """Nothing is written: the student reads each candidate once."""
    rows = rows_of(graph, source(graph, node, "rows"))
    assert rows is not None
    settings: Any = node.settings
    read = rows.scored * min(settings.max_tokens, rows.tokens + TEMPLATE_TOKENS)
    return Asked(node.name, rows.scored, read, 0, f"{rows.scored:,} candidates, each read once")


def _incontext(graph: Graph, node: Node) -> Asked:
    settings: Any = node.settings
    preference: Any = source(graph, node, "preference").settings
    rows = rows_of(graph, source(graph, node, "rows"))
    assert rows is not None
    calls = rows.scored * preference.size
    examples = (rows.scored if settings.engine.prefix_caching else calls) * (rows.tokens + TEMPLATE_TOKENS)
    told = f"{rows.scored:,} candidates x {preference.size} questions"
    written = calls * (settings.reasoning_tokens + _ANSWER_TOKENS)
    return _asked(node, calls, examples + calls * QUESTION_TOKENS, told, written)


def _answers(graph: Graph, node: Node) -> Asked | None:
    settings: Any = node.settings
    tasks: Any = source(graph, node, "tasks").settings
    questions = tasks.validation if settings.role == "validation" else tasks.test
    if questions is None:
        return None
    count, shots = len(tasks.tasks), settings.shots
    calls = count * questions * len(shots)
    # The examples of a task are the same for all of its questions.
    shown = (count if settings.engine.prefix_caching else count * questions) * sum(shots)
    read = calls * (QUESTION_TOKENS + TEMPLATE_TOKENS) + shown * (QUESTION_TOKENS + SHOWN_RATIONALE_TOKENS)
    told = f"{count} tasks x {questions} questions x {len(shots)} numbers of examples"
    return _asked(node, calls, read, told, calls * (settings.reasoning_tokens + _ANSWER_TOKENS))


def _replies(graph: Graph, node: Node) -> Asked | None:
    """A later turn reads the ones before it."""
    found = _benchmark(graph, source(graph, node, "questions"))
    if found is None:
        return None
    settings: Any = node.settings
    questions, turns = found
    once = QUESTION_TOKENS + settings.sampling.max_tokens
    read = questions * sum(turn * once + QUESTION_TOKENS + TEMPLATE_TOKENS for turn in range(turns))
    return _asked(node, questions * turns, read, _told(questions, turns))


def _judged(graph: Graph, node: Node) -> Asked | None:
    """Verdicts or grades of every student's replies."""
    replies = [name for name in node.inputs if name.startswith("replies.")]
    answered = source(graph, node, replies[0])
    found = _benchmark(graph, source(graph, answered, "questions"))
    if found is None:
        return None
    settings: Any = node.settings
    reply: int = answered.settings.sampling.max_tokens  # type: ignore[attr-defined]
    questions, turns = found
    prompt = counts.tokens(settings.template) + TEMPLATE_TOKENS
    if node.stage == "mtbench":
        talks = len(replies) * questions
        read = talks * sum(prompt + turn * (QUESTION_TOKENS + reply) for turn in range(1, turns + 1))
        return _asked(node, talks * turns, read, f"{len(replies)} students x {_told(*found)}")
    others = sum(split_replica(name.removeprefix("replies."))[0] != settings.baseline for name in replies)
    calls = 2 * others * questions
    told = f"{others} students against {settings.baseline} x {questions} questions x 2 orders"
    return _asked(node, calls, calls * (prompt + QUESTION_TOKENS + 2 * reply), told)


def _harness(graph: Graph, node: Node) -> Asked | None:
    """Nothing is written where a task has choices, as the bundled one: the student reads each behind its question."""
    settings: Any = node.settings
    documents = documents_of(settings)
    if documents is None:
        return None
    students = sum(name.startswith("student.") for name in node.inputs)
    calls = students * documents * _CHOICES
    prompt = (1 + (settings.fewshot or 0)) * QUESTION_TOKENS
    told = f"{students} students x {documents} documents x {_CHOICES} choices"
    return Asked(node.name, calls, calls * prompt, 0, told)


_COUNTED: Mapping[str, Callable[[Graph, Node], Asked | None]] = {
    "instructions": _instructions,
    "questions": _questions,
    "responses": _responses,
    "rationales": _responses,
    "judge": _judge,
    "loss": _loss,
    "incontext": _incontext,
    "answers": _answers,
    "replies": _replies,
    "winrate": _judged,
    "mtbench": _judged,
    "harness": _harness,
}


def _asked(node: Node, calls: int, read: int, counted: str, written: int | None = None) -> Asked:
    settings: Any = node.settings
    most = calls * settings.sampling.max_tokens if written is None else written
    return Asked(node.name, calls, math.ceil(read), most, counted, settings.engine.model or "")


def _benchmark(graph: Graph, node: Node) -> tuple[int, int] | None:
    """(questions, turns of each), where they can be counted without a network."""
    settings: Any = node.settings
    if settings.which == "mtbench":
        rows, turns = count_rows(settings.mtbench, graph.files), 2
    elif settings.winrate is not None:
        rows, turns = count_rows(settings.winrate, graph.files), 1
    else:
        prepare: Any = source(graph, node, "reference").settings
        every, turns = count_rows(prepare.reference, graph.files), 1
        rows = None if every is None else every - round(every * prepare.probe_share)
    limits = [each for each in (rows, settings.limit) if each is not None]
    return (min(limits), turns) if limits else None


def _told(questions: int, turns: int) -> str:
    return f"{questions} questions" + (f" x {turns} turns" if turns > 1 else "")
