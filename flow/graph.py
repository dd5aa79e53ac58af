"""From a recipe to nodes and edges, as data. Nothing here knows where or when a node runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flow.recipe import RecipeBase
from stages.contract.catalog import spec
from stages.contract.errors import bad_settings
from stages.contract.spec import StageSettings
from stages.models.settings import ModelSource


@dataclass(frozen=True)
class Edge:
    """An input that another node makes; `folder` names a part of its files."""

    node: str
    folder: str = ""


@dataclass(frozen=True)
class Node:
    """One piece of work: a stage with its settings and inputs. `branch` groups nodes for people."""

    name: str
    stage: str
    settings: StageSettings
    inputs: Mapping[str, Edge | ModelSource]
    shards: int
    branch: str

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(each.node for each in self.inputs.values() if isinstance(each, Edge))


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after what it needs, and which of them are the run's output."""

    run: str
    nodes: Mapping[str, Node]
    outputs: Mapping[str, str]

    def downstream(self, name: str) -> tuple[str, ...]:
        """The node and everything that is made from it, in order."""
        found = {name}
        for node in self.nodes.values():
            if found.intersection(node.needs):
                found.add(node.name)
        return tuple(each for each in self.nodes if each in found)

    def node(self, name: str) -> Node:
        if name not in self.nodes:
            raise bad_settings(f"the run has no node {name!r}", where=self.run, hint=f"it has {', '.join(self.nodes)}")
        return self.nodes[name]


class _Builder:
    def __init__(self, recipe: RecipeBase) -> None:
        self.recipe = recipe
        self.nodes: dict[str, Node] = {}

    def add(
        self, name: str, stage: str, inputs: Mapping[str, Edge | ModelSource], settings: StageSettings | None = None
    ) -> str:
        chosen = settings if settings is not None else self.recipe.section(stage)
        branch = name.partition(".")[0] if "." in name else "run"
        shards = self.recipe.run.shards.get(stage, 1)
        self.nodes[name] = Node(name, stage, chosen, dict(inputs), shards, branch)
        return name


def build(recipe: RecipeBase) -> Graph:
    """The graph of a recipe: `iterations` are unrolled, and every branch of `compare` shares what it can."""
    builder = _Builder(recipe)
    builder.add("prepare", "prepare", {})
    teacher: Edge | ModelSource = recipe.teacher
    checkpoint: str | None = None
    previous: str | None = None
    if recipe.method == "montessori":
        for number in range(1, recipe.iterations + 1):
            checkpoint, teacher_node, previous = _iteration(builder, f"it{number}", teacher, previous)
            teacher = Edge(teacher_node)
    branches: dict[str, Edge | ModelSource] = {}
    if recipe.method == "montessori":
        branches["tailored"] = teacher
    for each in recipe.compare if recipe.method == "montessori" else ("self-instruct",):
        branches[each] = recipe.teacher
    students: dict[str, Edge | ModelSource] = {"base": recipe.student}
    for branch, writer in branches.items():
        students[branch] = Edge(_final_data(builder, branch, writer, checkpoint))
    builder.add(
        "evaluate",
        "evaluate",
        {**{f"student.{name}": model for name, model in students.items()}, "reference": Edge("prepare")},
    )
    main = next(iter(branches))
    outputs = {"dataset": f"{main}.responses", "student": f"{main}.sft", "report": "report"}
    if isinstance(teacher, Edge):
        outputs["teacher"] = teacher.node
    _report(builder, main)
    return Graph(recipe.name, builder.nodes, outputs)


def _iteration(
    builder: _Builder, prefix: str, teacher: Edge | ModelSource, previous: str | None
) -> tuple[str, str, str]:
    """One round of probing and DPO; returns its checkpoint node, teacher node and curated instructions."""
    recipe = builder.recipe
    seen = {"previous": Edge(previous)} if previous else {}
    prepare = Edge("prepare")
    raw = builder.add(f"{prefix}.instructions", "instructions", {"seeds": prepare, "teacher": teacher, **seen})
    curated = builder.add(f"{prefix}.curate", "curate", {"instructions": Edge(raw), "seeds": prepare})
    rows = Edge(builder.add(f"{prefix}.responses", "responses", {"instructions": Edge(curated), "teacher": teacher}))
    checkpoint = builder.add(f"{prefix}.warmup", "warmup", {"student": recipe.student, "rows": rows})
    probe = {"rows": rows, "checkpoint": Edge(checkpoint), "reference": prepare}
    audit = _audit(builder, f"{prefix}.audit", probe)
    scores = builder.add(f"{prefix}.influence", "influence", {**probe, **audit})
    means = builder.add(f"{prefix}.aggregate", "aggregate", {"scores": Edge(scores), "instructions": Edge(curated)})
    pairs = builder.add(f"{prefix}.pairs", "pairs", {"scores": Edge(means)})
    start = recipe.teacher if recipe.iterate_teacher == "base" else teacher
    trained = builder.add(f"{prefix}.dpo", "dpo", {"teacher": start, "pairs": Edge(pairs)})
    return checkpoint, trained, curated


def _audit(builder: _Builder, name: str, probe: Mapping[str, Edge | ModelSource]) -> dict[str, Edge]:
    """The audit as an input of the probes, unless the recipe leaves it out (`audit.size: 0`)."""
    settings = builder.recipe.section("audit")
    if not settings.model_dump()["size"]:
        return {}
    # It judges the probes of `influence`, so it probes with their settings.
    probes = builder.recipe.section("influence").model_dump(include=set(type(settings).model_fields))
    return {"audit": Edge(builder.add(name, "audit", probe, settings.model_copy(update=probes)))}


def _final_data(builder: _Builder, branch: str, teacher: Edge | ModelSource, checkpoint: str | None) -> str:
    """The data that a branch's student is trained on, their measured influence, and the student."""
    recipe = builder.recipe
    prepare = Edge("prepare")
    raw = builder.add(
        f"{branch}.instructions",
        "instructions",
        {"seeds": prepare, "teacher": teacher},
        recipe.fresh_settings("instructions"),
    )
    curated = builder.add(
        f"{branch}.curate",
        "curate",
        {"instructions": Edge(raw), "seeds": prepare},
        recipe.fresh_settings("curate").model_copy(update={"role": "train"}),
    )
    rows = Edge(
        builder.add(
            f"{branch}.responses",
            "responses",
            {"instructions": Edge(curated), "teacher": teacher},
            recipe.fresh_settings("responses"),
        )
    )
    if recipe.measure and checkpoint is not None:
        audit = checkpoint.replace(".warmup", ".audit")
        builder.add(
            f"{branch}.influence",
            "influence",
            {
                "rows": rows,
                "checkpoint": Edge(checkpoint),
                "reference": prepare,
                **({"audit": Edge(audit)} if audit in builder.nodes else {}),
            },
            recipe.fresh_settings("influence"),
        )
    return builder.add(f"{branch}.sft", "sft", {"student": recipe.student, "rows": rows})


def _report(builder: _Builder, main: str) -> None:
    recipe = builder.recipe
    edges = [
        [each.node, node.name, name]
        for node in builder.nodes.values()
        for name, each in node.inputs.items()
        if isinstance(each, Edge)
    ]
    # What does not change the result stays out, so that moving a store or adding shards keeps the report cached.
    shown = recipe.model_dump(mode="json", exclude={"store", "run"})
    settings: dict[str, Any] = {
        "title": recipe.name,
        "run": recipe.name,
        "recipe": shown,
        "edges": edges,
        "main": main,
        "baseline": next(iter(recipe.compare), ""),
    }
    builder.add(
        "report",
        "report",
        {f"node.{name}": Edge(name) for name in builder.nodes},
        spec("report").settings.model_validate(settings),
    )
