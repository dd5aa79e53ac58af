"""What is asked of the students that the branches leave, and the report that tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flow import methods
from flow.graph.asked import questions
from flow.graph.branches import Branch
from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Edge, Source
from flow.graph.students import Replicas
from flow.recipe import RecipeBase
from flow.sources import without_places
from stages.contract.canonical import digest
from stages.contract.catalog import spec
from stages.evaluate.names import replica

UNTRAINED = "base"
Students = Mapping[str, Source]


def evaluate(builder: Builder, branches: Sequence[Branch], on_the_way: Mapping[str, Replicas] | None = None) -> None:
    """Every branch's students and the untrained one by each measure that the recipe names, and all in one table.

    Students of a teacher `on_the_way` have their loss measured and nothing else: they are no competitors.
    """
    students: dict[str, Source] = {UNTRAINED: builder.recipe.student}
    students |= {replica(each.name, seed): model for each in branches for seed, model in each.replicas.items()}
    named = {f"student.{name}": model for name, model in students.items()}
    passing = {
        f"student.{replica(name, seed)}": model
        for name, replicas in (on_the_way or {}).items()
        for seed, model in replicas.items()
    }
    measures = {"losses": builder.add("evaluate", "evaluate", {**named, **passing, "reference": PREPARE})}
    for benchmark in builder.recipe.benchmarks:
        if benchmark == "harness":
            measures[benchmark] = builder.add("harness", "harness", named)
        else:
            measures[benchmark] = _judged(builder, benchmark, students)
    settings = with_baseline(builder, "comparison").model_copy(update={"left_out": tuple(on_the_way or ())})
    builder.add("comparison", "comparison", measures, settings)


def _judged(builder: Builder, benchmark: str, students: Students) -> Edge:
    """Questions, every student's replies, and what the judge says of them."""
    recipe = builder.recipe
    asked = questions(builder, benchmark)
    replies = {
        f"replies.{name}": builder.add(
            f"{benchmark}.replies-{name.replace('.', '-')}", "replies", {"questions": asked, "model": model}
        )
        for name, model in students.items()
    }
    judge = {"judge": recipe.judge_model or recipe.teacher}
    return builder.add(f"{benchmark}.judge", benchmark, {**replies, **judge}, with_baseline(builder, benchmark))


def with_baseline(builder: Builder, stage: str) -> Any:
    """A stage's section; where it compares with one student, that is the first of `compare`, else the untrained one."""
    settings = builder.recipe.section(stage)
    if "baseline" not in type(settings).model_fields:
        return settings
    return settings.model_copy(update={"baseline": _baseline(builder.recipe) or UNTRAINED})


def _baseline(recipe: RecipeBase) -> str:
    """The student that the main one is compared with first; empty where the recipe names none."""
    first = next(iter(recipe.compare), "")
    return UNTRAINED if first == methods.UNTRAINED else first


def report(builder: Builder, main: str) -> Edge:
    """The report, made from every other node."""
    recipe = builder.recipe
    edges = [
        [each.node, node.name, name]
        for node in builder.nodes.values()
        for name, each in node.inputs.items()
        if isinstance(each, Edge)
    ]
    # What does not change the result stays out, so that moving a store or adding shards keeps the report cached.
    elsewhere = {"store", "run"}
    settings: dict[str, Any] = {
        "title": recipe.name,
        "run": recipe.name,
        "recipe": recipe.model_dump(mode="json", exclude=elsewhere),
        "recipe_digest": digest(without_places(recipe).model_dump(mode="json", exclude=elsewhere)),
        "edges": edges,
        "main": main,
        "baseline": _baseline(recipe),
    }
    return builder.add(
        "report",
        "report",
        {f"node.{name}": Edge(name) for name in builder.nodes},
        spec("report").settings.model_validate(settings),
    )
