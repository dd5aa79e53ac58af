"""ARTE: a preference set chosen once, rounds of drafting, scoring and teacher training, students and their accuracy.

The rounds differ from Montessori-Instruct's in what is generated and in the signal; the branches, in having no
reference rows: students are judged by the tasks' own test questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flow.graph.builder import Builder
from flow.graph.model import Edge, Source
from flow.graph.students import Replicas, train
from stages.evaluate.names import replica

TASKS = Edge("tasks")
_UNTRAINED = "base"


@dataclass(frozen=True)
class Arte:
    """What an ARTE run leaves: the branch that it is for, its rows and student, and the trained teacher."""

    main: str
    dataset: Edge
    student: Edge
    teacher: Source


def arte(builder: Builder) -> Arte:
    """All of ARTE but the report."""
    recipe = builder.recipe
    builder.add("tasks", "tasks", {})
    preference = _preference(builder)
    teacher: Source = recipe.teacher
    for number in range(1, recipe.iterations + 1):
        teacher = _round(builder, f"it{number}", teacher, preference)
    writers: dict[str, Source] = {"tailored": teacher}
    for each in recipe.compare:
        writers[each] = recipe.teacher
    made = {name: _branch(builder, name, writer, preference) for name, writer in writers.items()}
    _judge(builder, {name: replicas for name, (_, replicas) in made.items()})
    dataset, replicas = made["tailored"]
    return Arte("tailored", dataset, next(iter(replicas.values())), teacher)


def _judge(builder: Builder, students: Mapping[str, Replicas]) -> None:
    """Every student's answers to the test questions, the untrained one's beside them, and what they come to."""
    answers = {f"answers.{_UNTRAINED}": _answers(builder, f"{_UNTRAINED}.answers", builder.recipe.student)}
    for name, replicas in students.items():
        for seed, student in replicas.items():
            node = f"{name}.answers" if seed is None else f"{name}.answers-{seed}"
            answers[f"answers.{replica(name, seed)}"] = _answers(builder, node, student)
    accuracy = builder.add("accuracy", "accuracy", {"tasks": TASKS, **answers})
    baseline = next(iter(builder.recipe.compare), _UNTRAINED)
    settings = builder.recipe.section("comparison").model_copy(update={"baseline": baseline})
    builder.add("comparison", "comparison", {"accuracy": accuracy}, settings)


def _answers(builder: Builder, node: str, student: Source) -> Edge:
    return builder.add(node, "answers", {"tasks": TASKS, "student": student})


def _preference(builder: Builder) -> Edge:
    """The panel's answers to the validation questions, and what item responses choose of these."""
    recipe = builder.recipe
    models = recipe.panel.models or {"student": recipe.student, "teacher": recipe.teacher}
    settings = recipe.section("answers").model_copy(
        update={"role": "validation", "shots": tuple(sorted(set(recipe.panel.shots)))}
    )
    answers = {
        f"answers.{name}": builder.add(f"panel.{name}", "answers", {"tasks": TASKS, "student": model}, settings)
        for name, model in models.items()
    }
    return builder.add("irt", "irt", {"tasks": TASKS, **answers})


def _round(builder: Builder, prefix: str, teacher: Source, preference: Edge) -> Edge:
    """One round: questions and rationales, their scores, the pairs, a trained teacher."""
    recipe = builder.recipe
    drafted = builder.add(f"{prefix}.questions", "questions", {"seeds": TASKS, "teacher": teacher})
    selected = builder.add(f"{prefix}.select", "select", {"instructions": drafted, "seeds": TASKS})
    rows = builder.add(
        f"{prefix}.rationales", "rationales", {"instructions": selected, "seeds": TASKS, "teacher": teacher}
    )
    scores = _incontext(builder, prefix, rows, preference)
    pairs = builder.add(f"{prefix}.preferences", "preferences", {"scores": scores, "rows": rows, "questions": selected})
    start = recipe.teacher if recipe.iterate_teacher == "base" else teacher
    # The outputs of pairs end as they should: nothing is put behind them.
    settings = recipe.section("dpo").model_copy(update={"closing": ""})
    return builder.add(f"{prefix}.dpo", "dpo", {"teacher": start, "pairs": pairs}, settings)


def _branch(builder: Builder, name: str, teacher: Source, preference: Edge) -> tuple[Edge, Replicas]:
    """(rows, students) of one branch; the rows are written with the naive prompt."""
    recipe = builder.recipe
    drafted = builder.add(
        f"{name}.questions", "questions", {"seeds": TASKS, "teacher": teacher}, recipe.fresh_settings("questions")
    )
    selected = builder.add(
        f"{name}.select",
        "select",
        {"instructions": drafted, "seeds": TASKS},
        recipe.fresh_settings("select").model_copy(update={"role": "train"}),
    )
    rows = builder.add(
        f"{name}.rationales",
        "rationales",
        {"instructions": selected, "seeds": TASKS, "teacher": teacher},
        recipe.fresh_settings("rationales").model_copy(update={"style": "naive"}),
    )
    if recipe.measure:
        _incontext(builder, name, rows, preference)
    return rows, train(builder, name, recipe.student, rows)


def _incontext(builder: Builder, prefix: str, rows: Edge, preference: Edge) -> Edge:
    inputs: dict[str, Source] = {
        "rows": rows, "student": builder.recipe.student, "tasks": TASKS, "preference": preference
    }  # fmt: skip
    return builder.add(f"{prefix}.incontext", "incontext", inputs)
