"""The branches of a recipe: the data that each one's student is trained on, and the student."""

from __future__ import annotations

from dataclasses import dataclass

from flow.graph.asked import watched
from flow.graph.budget import budgeted, with_prompts
from flow.graph.builder import PREPARE, Builder
from flow.graph.iteration import Iterated, iterate, shown
from flow.graph.model import Edge
from flow.graph.students import Replicas, train
from flow.methods import SELF_INSTRUCT, TAILORED, UNTRAINED, method_of, own_method

FINAL = ("instructions", "curate", "responses")  # the stages of a branch's final data, its rows' own last


@dataclass(frozen=True)
class Branch:
    """What one branch leaves: its data set, the rows of it that were trained on, and its student by training seed."""

    name: str
    dataset: Edge
    rows: Edge
    replicas: Replicas

    @property
    def student(self) -> Edge:
        """The student that stands for the branch: that of the first seed."""
        return next(iter(self.replicas.values()))


def branches(builder: Builder, last: Iterated) -> list[Branch]:
    """Every branch of a recipe with a student of its own, the one that the recipe is about first."""
    recipe = builder.recipe
    datasets: dict[str, Edge] = {}
    if recipe.method == "self-instruct":
        datasets[SELF_INSTRUCT] = _dataset(builder, SELF_INSTRUCT, last, last)
    else:
        datasets[TAILORED] = _dataset(builder, TAILORED, last, last)
        own = own_method(recipe.method, recipe.signal, recipe.update)
        for name in recipe.compare:
            if name == UNTRAINED:
                continue  # it needs no data; its student is evaluated in any case
            method = method_of(name, own)
            ended = iterate(builder, method, name, last.scores) if method else Iterated(recipe.teacher)
            datasets[name] = _dataset(builder, name, ended, last)
    paid = budgeted(builder, datasets, FINAL)
    return [
        Branch(name, dataset, paid[name], train(builder, name, recipe.student, paid[name]))
        for name, dataset in datasets.items()
    ]


def _dataset(builder: Builder, name: str, ended: Iterated, own: Iterated) -> Edge:
    """The data of a branch whose rounds have ended, and their influence as the recipe's own probes measure it."""
    recipe = builder.recipe
    teacher = ended.teacher
    raw = builder.add(
        f"{name}.instructions",
        "instructions",
        {"seeds": ended.seeds, "teacher": teacher},
        with_prompts(builder, name, "instructions"),
    )
    curated = builder.add(
        f"{name}.curate",
        "curate",
        {"instructions": raw, **shown(ended)},
        recipe.fresh_settings("curate").model_copy(update={"role": "train"}),
    )
    rows = builder.add(
        f"{name}.responses",
        "responses",
        {"instructions": curated, "teacher": teacher},
        recipe.fresh_settings("responses"),
    )
    builder.add(
        f"{name}.diversity",
        "diversity",
        {"instructions": raw, "rows": rows, "reference": PREPARE, **watched(builder)},
        recipe.fresh_settings("diversity"),
    )
    if recipe.measure and own.checkpoint:
        audit = {"audit": own.audit} if own.audit else {}
        builder.add(
            f"{name}.influence",
            "influence",
            {"rows": rows, "checkpoint": own.checkpoint, "reference": PREPARE, **audit},
            recipe.fresh_settings("influence"),
        )
    return rows
