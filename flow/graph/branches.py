"""The branches of a recipe: the data that each one's student is trained on, and the student."""

from __future__ import annotations

from dataclasses import dataclass

from flow.graph.builder import PREPARE, Builder
from flow.graph.iteration import Iterated
from flow.graph.model import Edge, Source
from flow.graph.students import Replicas, train


@dataclass(frozen=True)
class Branch:
    """What one branch leaves: its training rows, and its trained student by training seed."""

    name: str
    dataset: Edge
    replicas: Replicas

    @property
    def student(self) -> Edge:
        """The student that stands for the branch: that of the first seed."""
        return next(iter(self.replicas.values()))


def branches(builder: Builder, last: Iterated) -> list[Branch]:
    """Every branch of a recipe, the one that the recipe is about first."""
    recipe = builder.recipe
    writers: dict[str, Source] = {}
    if recipe.method == "montessori":
        writers["tailored"] = last.teacher
    for each in recipe.compare if recipe.method == "montessori" else ("self-instruct",):
        writers[each] = recipe.teacher
    return [_branch(builder, name, writer, last) for name, writer in writers.items()]


def _branch(builder: Builder, name: str, teacher: Source, last: Iterated) -> Branch:
    """The data that a branch's student is trained on, their measured influence, and the student."""
    recipe = builder.recipe
    raw = builder.add(
        f"{name}.instructions",
        "instructions",
        {"seeds": PREPARE, "teacher": teacher},
        recipe.fresh_settings("instructions"),
    )
    curated = builder.add(
        f"{name}.curate",
        "curate",
        {"instructions": raw, "seeds": PREPARE},
        recipe.fresh_settings("curate").model_copy(update={"role": "train"}),
    )
    rows = builder.add(
        f"{name}.responses",
        "responses",
        {"instructions": curated, "teacher": teacher},
        recipe.fresh_settings("responses"),
    )
    if recipe.measure and last.checkpoint:
        audit = {"audit": last.audit} if last.audit else {}
        builder.add(
            f"{name}.influence",
            "influence",
            {"rows": rows, "checkpoint": last.checkpoint, "reference": PREPARE, **audit},
            recipe.fresh_settings("influence"),
        )
    return Branch(name, rows, train(builder, name, recipe.student, rows))
