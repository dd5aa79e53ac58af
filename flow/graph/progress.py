"""What a teacher is like on its way: data and a student of each checkpoint that its training publishes.

They are made as the main branch's are, from the same prompts with the same settings; only the teacher is another folder
of the same artifact. A student gets no more than those of the compared branches, and may get less: no branch is cut for
a checkpoint's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flow.graph.branches import FINAL
from flow.graph.budget import beside
from flow.graph.builder import Builder
from flow.graph.model import Edge, Node, Source
from flow.graph.students import Replicas

# Stages of the main branch that a checkpoint's data and student take; what only watches a branch is left out.
_STAGES = ("instructions", "curate", "responses", "influence", "budget", "sft")


def on_the_way(builder: Builder, main: str, replicas: Replicas, teacher: Source) -> dict[str, Replicas]:
    """The students of each checkpoint (`dpo.checkpoints`) of the main branch's teacher, by the checkpoint's name.

    No other training publishes checkpoints: nothing would look at them.
    """
    settings: Any = builder.recipe.section("dpo")
    if not settings.checkpoints:
        return {}
    for node in list(builder.nodes.values()):
        if node.stage == "dpo" and teacher != Edge(node.name):
            builder.nodes[node.name] = replace(node, settings=settings.model_copy(update={"checkpoints": 0}))
    if not isinstance(teacher, Edge):
        return {}
    own = [node for node in builder.nodes.values() if node.name.startswith(f"{main}.") and node.stage in _STAGES]
    names = [f"checkpoint-{place}" for place in range(1, settings.checkpoints + 1)]
    return {name: _copied(builder, own, main, name, teacher, replicas) for name in names}


def _copied(
    builder: Builder, own: list[Node], main: str, name: str, teacher: Edge, replicas: Replicas
) -> Mapping[int | None, Edge]:
    """The main branch's nodes once more, for the teacher in the folder `name`."""
    renamed = {node.name: f"{name}.{node.name.removeprefix(f'{main}.')}" for node in own}

    def moved(source: Source) -> Source:
        if source == teacher:
            return replace(teacher, folder=name)
        return Edge(renamed[source.node]) if isinstance(source, Edge) and source.node in renamed else source

    for node in own:
        if node.stage == "budget":
            rows = Edge(renamed[f"{main}.{FINAL[-1]}"])
            beside(builder, name, rows, FINAL, node)
            continue
        builder.add(
            renamed[node.name],
            node.stage,
            {given: moved(source) for given, source in node.inputs.items()},
            node.settings,
        )
    return {seed: Edge(renamed[student.node]) for seed, student in replicas.items()}
