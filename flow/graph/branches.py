"""The branches of a recipe: the data that each one's student is trained on, and the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flow.graph.asked import watched
from flow.graph.builder import PREPARE, Builder
from flow.graph.iteration import Iterated, iterate, shown
from flow.graph.model import Edge, Source, upstream
from flow.graph.students import Replicas, train
from flow.methods import TAILORED, UNTRAINED, Method, method_of
from stages.contract.spec import StageSettings


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
        datasets["self-instruct"] = _dataset(builder, "self-instruct", last, last)
    else:
        datasets[TAILORED] = _dataset(builder, TAILORED, last, last)
        own = Method(recipe.signal, recipe.update)
        for name in recipe.compare:
            if name == UNTRAINED:
                continue  # it needs no data; its student is evaluated in any case
            method = method_of(name, own)
            ended = iterate(builder, method, name, last.scores) if method else Iterated(recipe.teacher)
            datasets[name] = _dataset(builder, name, ended, last)
    paid = _budgeted(builder, datasets)
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
        _with_prompts(builder, name),
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


def _with_prompts(builder: Builder, name: str) -> StageSettings:
    """The final instructions' settings, with the branch's own number of prompts if it has one."""
    settings = builder.recipe.fresh_settings("instructions")
    budget: Any = builder.recipe.section("budget")
    prompts = budget.prompts.get(name)
    return settings if prompts is None else settings.model_copy(update={"prompts": prompts})


def _budgeted(builder: Builder, datasets: dict[str, Edge]) -> dict[str, Edge]:
    """The rows of each data set that all branches can afford; the data sets themselves where nothing is to be cut."""
    budget: Any = builder.recipe.section("budget")
    sft: Any = builder.recipe.section("sft")
    if len(datasets) < 2 or budget.match == "none" or sft.rows is not None:
        return datasets
    every: dict[str, Source] = {f"branch.{name}": rows for name, rows in datasets.items()}
    if budget.match == "device_seconds":
        for name, rows in datasets.items():
            every |= _costs(builder, name, rows)
    return {
        name: builder.add(f"{name}.budget", "budget", {f"own.{name}": rows, **every}) for name, rows in datasets.items()
    }


def _costs(builder: Builder, name: str, rows: Edge) -> dict[str, Source]:
    """A branch's nodes as inputs: those behind its teacher and seeds, and those of its final data."""
    final: Sequence[str] = (f"{name}.instructions", f"{name}.curate", rows.node)
    before = upstream(builder.nodes, final[0])
    inputs: dict[str, Source] = {f"before.{name}.{each}": Edge(each) for each in before}
    return inputs | {f"final.{name}.{each}": Edge(each) for each in final}
