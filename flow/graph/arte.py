"""ARTE: a preference set chosen once, rounds of drafting, scoring and teacher training, students and their accuracy.

The rounds differ from Montessori-Instruct's in what is generated and in the signal; the branches, in having no
reference rows: students are judged by the tasks' own test questions. Compared methods score the same drafts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flow import methods
from flow.graph.budget import budgeted, with_prompts
from flow.graph.builder import Builder
from flow.graph.evaluation import with_baseline
from flow.graph.model import Edge, Source
from flow.graph.students import Replicas, train
from flow.methods import TAILORED, Method, Scored, method_of, own_method
from stages.contract.spec import StageSettings
from stages.evaluate.names import replica

TASKS = Edge("tasks")
_UNTRAINED = "base"
# What the teacher drafts before any training.
_UNMODIFIED_DRAFTS = Edge("it1.questions")


@dataclass(frozen=True)
class Arte:
    """What an ARTE run leaves: the branch that it is for, its rows and student, and the trained teacher."""

    main: str
    dataset: Edge
    student: Edge
    teacher: Source


@dataclass(frozen=True)
class _Rounds:
    """What a method's rounds leave: its teacher, and its own scores by round."""

    teacher: Source
    scores: tuple[Edge, ...] = ()


def arte(builder: Builder) -> Arte:
    """All of ARTE but the report."""
    recipe = builder.recipe
    builder.add("tasks", "tasks", {})
    preference = _preference(builder)
    own = own_method(recipe.method, recipe.signal, recipe.update)
    last = _rounds(builder, TAILORED, own, preference)
    writers: dict[str, Source] = {TAILORED: last.teacher}
    for name in recipe.compare:
        if name == methods.UNTRAINED:
            continue  # it needs no data, and is asked in any case
        method = method_of(name, own)
        writers[name] = _rounds(builder, name, method, preference, last.scores).teacher if method else recipe.teacher
    datasets = {name: _dataset(builder, name, writer, preference) for name, writer in writers.items()}
    paid = budgeted(builder, datasets, ("questions", "select", "rationales"))
    students = {name: train(builder, name, recipe.student, rows) for name, rows in paid.items()}
    accuracy = _accuracy(builder, recipe.student, students)
    builder.add("comparison", "comparison", {"accuracy": accuracy}, with_baseline(builder, "comparison"))
    for other, model in recipe.transfer.items():
        _accuracy(
            builder, model, {name: train(builder, name, model, rows, other) for name, rows in paid.items()}, other
        )
    return Arte(TAILORED, datasets[TAILORED], next(iter(students[TAILORED].values())), last.teacher)


def _accuracy(builder: Builder, untrained: Source, students: Mapping[str, Replicas], other: str = "") -> Edge:
    """Every student's answers to the test questions, the untrained one's beside them, and what they come to.

    Args:
        other: the name of a student that is not the recipe's own.
    """
    mark = f"-{other}" if other else ""
    answers = {f"answers.{_UNTRAINED}": _answers(builder, f"{_UNTRAINED}.answers{mark}", untrained)}
    for name, replicas in students.items():
        for seed, student in replicas.items():
            node = f"{name}.answers{mark}" if seed is None else f"{name}.answers{mark}-{seed}"
            answers[f"answers.{replica(name, seed)}"] = _answers(builder, node, student)
    return builder.add(f"transfer.{other}" if other else "accuracy", "accuracy", {"tasks": TASKS, **answers})


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


def _rounds(
    builder: Builder, branch: str, method: Method, preference: Edge, control_of: tuple[Edge, ...] = ()
) -> _Rounds:
    """All rounds of one method; those of a branch share with the recipe's own every node that does the same work."""
    last = _Rounds(builder.recipe.teacher)
    for number in range(1, builder.recipe.iterations + 1):
        prefix = f"it{number}" if branch == TAILORED else f"{branch}.it{number}"
        more = builder.recipe.signals if branch == TAILORED else ()
        last = _round(builder, prefix, last, (method.signal, *more), preference, control_of[number - 1 : number])
    return last


def _round(
    builder: Builder,
    prefix: str,
    last: _Rounds,
    signals: tuple[Scored, ...],
    preference: Edge,
    control_of: tuple[Edge, ...],
) -> _Rounds:
    """One round: questions and rationales, their scores, the pairs, a trained teacher.

    Args:
        signals: pairs are by the first; the others are for the report.
    """
    recipe, teacher = builder.recipe, last.teacher
    drafted = builder.share(f"{prefix}.questions", "questions", {"seeds": TASKS, "teacher": teacher})
    selected = builder.share(f"{prefix}.select", "select", {"instructions": drafted, "seeds": TASKS})
    rows = builder.share(
        f"{prefix}.rationales", "rationales", {"instructions": selected, "seeds": TASKS, "teacher": teacher}
    )
    _watch(builder, prefix, teacher, drafted, rows, recipe.section("diversity"))
    scores = _scored(builder, prefix, signals[0], rows, teacher, preference, control_of)
    for each in signals[1:]:
        _scored(builder, prefix, each, rows, teacher, preference, (scores,))
    pairs = builder.share(
        f"{prefix}.preferences", "preferences", {"scores": scores, "rows": rows, "questions": selected}
    )
    start = recipe.teacher if recipe.iterate_teacher == "base" else teacher
    # The outputs of pairs end as they should: nothing is put behind them.
    settings = recipe.section("dpo").model_copy(update={"closing": ""})
    trained = builder.share(f"{prefix}.dpo", "dpo", {"teacher": start, "pairs": pairs}, settings)
    return _Rounds(trained, (*last.scores, scores))


def _scored(
    builder: Builder,
    prefix: str,
    signal: Scored,
    rows: Edge,
    teacher: Source,
    preference: Edge,
    control_of: tuple[Edge, ...],
) -> Edge:
    """The node of one signal on a round's drafts."""
    if signal == "incontext":
        return _incontext(builder, prefix, rows, preference)
    inputs: dict[str, Source] = {"rows": rows}
    if signal == "judge":
        inputs["judge"] = builder.recipe.judge_model or teacher
    elif control_of:
        inputs["scores"] = control_of[0]
    return builder.share(f"{prefix}.{signal}", signal, inputs)


def _dataset(builder: Builder, name: str, teacher: Source, preference: Edge) -> Edge:
    """The rows of one branch, written with the naive prompt, and their scores where the recipe measures them."""
    recipe = builder.recipe
    drafted = builder.add(
        f"{name}.questions", "questions", {"seeds": TASKS, "teacher": teacher}, with_prompts(builder, name, "questions")
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
    _watch(builder, name, teacher, drafted, rows, recipe.fresh_settings("diversity"))
    if recipe.measure:
        _incontext(builder, name, rows, preference)
    return rows


def _watch(builder: Builder, prefix: str, teacher: Source, drafted: Edge, rows: Edge, settings: StageSettings) -> None:
    """How varied drafts are, what they have of the test's questions, and what training left of their variety."""
    inputs: dict[str, Source] = {"instructions": drafted, "rows": rows, "evaluation.tasks": TASKS}
    if teacher != builder.recipe.teacher:
        inputs["unmodified"] = _UNMODIFIED_DRAFTS
    builder.share(f"{prefix}.diversity", "diversity", inputs, settings)


def _incontext(builder: Builder, prefix: str, rows: Edge, preference: Edge) -> Edge:
    inputs: dict[str, Source] = {
        "rows": rows, "student": builder.recipe.student, "tasks": TASKS, "preference": preference
    }  # fmt: skip
    return builder.share(f"{prefix}.incontext", "incontext", inputs)
