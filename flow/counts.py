"""How many rows a node of generated texts holds, and how long they are, before anything is spent.

Counts are upper bounds (every output parses, nothing is dropped), and so are texts that a model writes (`max_tokens`).
Prompts are estimates: 4.5 characters a token, and a guess where only a file or a teacher knows them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from flow.graph import Edge, Graph, Node
from stages.curate.settings import WARMUP_SHARE

CHARACTERS_A_TOKEN = 4.5
TEMPLATE_TOKENS = 40  # of a chat template
EXAMPLE_TOKENS = 24  # an instruction that a prompt shows
QUESTION_TOKENS = 80  # a task's or a benchmark's question
SHOWN_RATIONALE_TOKENS = 80  # of a seed question's answer


@dataclass(frozen=True)
class Rows:
    """Upper bounds of a node of `responses` or `rationales`.

    Attributes:
        texts: instructions or questions that a signal scores, or that the student learns from.
        each: responses or rationales of each of them.
        others: rows besides, such as those of the warm-up.
        instruction, response: tokens of the two texts of a row.
    """

    texts: int
    each: int
    others: int
    instruction: int
    response: int

    @property
    def scored(self) -> int:
        return self.texts * self.each

    @property
    def made(self) -> int:
        return self.scored + self.others

    @property
    def tokens(self) -> int:
        """Of one row."""
        return self.instruction + self.response


def rows_of(graph: Graph, node: Node) -> Rows | None:
    """The rows that a node writes; None for one of another stage."""
    if node.stage == "responses":
        return _responses(graph, node)
    return _rationales(graph, node) if node.stage == "rationales" else None


def source(graph: Graph, node: Node, name: str) -> Node:
    """The node that an input is made by."""
    edge = node.inputs[name]
    assert isinstance(edge, Edge)
    return graph.nodes[edge.node]


def tokens(text: str) -> int:
    """Of a text as it stands in a recipe."""
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def ways(settings: Any, task: str) -> int:
    """Rationales of each question of a task."""
    if settings.style == "naive":
        return int(settings.samples)
    prompts = settings.of_task(task)
    return len(prompts.reasoning) if prompts else 0


def _responses(graph: Graph, node: Node) -> Rows:
    settings: Any = node.settings
    curated = source(graph, node, "instructions")
    curate: Any = curated.settings
    writer: Any = source(graph, curated, "instructions").settings
    written = writer.prompts * writer.samples
    kept = min(written, curate.most_rows or written)
    longest = min(writer.sampling.max_tokens, math.ceil(curate.most_characters / CHARACTERS_A_TOKEN))
    if curate.role == "train":
        return Rows(kept, settings.train_samples, 0, longest, settings.sampling.max_tokens)
    share = curate.warmup_share or WARMUP_SHARE
    warmup = min(kept, curate.warmup_rows or round(kept * share))
    others = warmup * settings.warmup_samples
    return Rows(kept - warmup, settings.samples, others, longest, settings.sampling.max_tokens)


def _rationales(graph: Graph, node: Node) -> Rows:
    """Tasks may have different numbers of reasoning prompts: `each` is 1 then, and `texts` are rationales."""
    settings: Any = node.settings
    chosen: Any = source(graph, node, "instructions").settings
    tasks: Any = source(graph, node, "seeds").settings
    counts = [ways(settings, name) for name in tasks.tasks]
    longest = settings.sampling.max_tokens
    if len(set(counts)) == 1:
        return Rows(chosen.per_task * len(counts), counts[0], 0, QUESTION_TOKENS, longest)
    return Rows(chosen.per_task * sum(counts), 1, 0, QUESTION_TOKENS, longest)
