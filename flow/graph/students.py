"""A student trained on a branch's rows, once with each seed of the recipe."""

from __future__ import annotations

from collections.abc import Mapping

from flow.graph.builder import Builder
from flow.graph.model import Edge, Source

Replicas = Mapping[int | None, Edge]


def train(builder: Builder, branch: str, student: Source, rows: Edge, other: str = "") -> Replicas:
    """The branch's trained student by training seed; None is the only one of a recipe without `seeds`.

    Args:
        other: the name of a student that is not the recipe's own.
    """
    name = f"{branch}.sft-{other}" if other else f"{branch}.sft"
    inputs = {"student": student, "rows": rows}
    settings = builder.recipe.section("sft")
    if not builder.recipe.seeds:
        return {None: builder.add(name, "sft", inputs, settings)}
    return {
        seed: builder.add(f"{name}-{seed}", "sft", inputs, settings.model_copy(update={"seed": seed}))
        for seed in builder.recipe.seeds
    }
