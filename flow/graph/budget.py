"""What compared branches are given the same of: rows, tokens, or device seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flow.graph.builder import Builder
from flow.graph.model import Edge, Node, Source, upstream
from stages.budget.settings import OWN
from stages.contract.errors import bad_settings
from stages.contract.spec import StageSettings


def with_prompts(builder: Builder, branch: str, section: str) -> StageSettings:
    """Settings of the stage that begins a branch's final data, with the branch's own number of prompts if any."""
    settings = builder.recipe.fresh_settings(section)
    budget: Any = builder.recipe.section("budget")
    prompts = budget.prompts.get(branch)
    return settings if prompts is None else settings.model_copy(update={"prompts": prompts})


def budgeted(builder: Builder, datasets: Mapping[str, Edge], final: Sequence[str]) -> Mapping[str, Edge]:
    """The rows of each data set that all branches can afford; the data sets themselves where nothing is to be cut.

    Args:
        datasets: rows by branch.
        final: the stages of a branch's final data, the rows' own last.
    """
    budget: Any = builder.recipe.section("budget")
    sft: Any = builder.recipe.section("sft")
    if len(datasets) < 2 or budget.match == "none" or sft.rows is not None:
        return datasets
    every: dict[str, Source] = {f"branch.{name}": rows for name, rows in datasets.items()}
    if budget.match == "device_seconds":
        for name in datasets:
            every |= _costs(builder, name, [f"{name}.{stage}" for stage in final])
    return {
        name: builder.add(f"{name}.budget", "budget", {f"{OWN}{name}": own, **every}) for name, own in datasets.items()
    }


def beside(builder: Builder, name: str, rows: Edge, final: Sequence[str], budget: Node) -> Edge:
    """The rows of one more data set that the branches and itself can afford; the branches are not cut for it.

    Args:
        budget: that of one of the branches.
    """
    inputs = {given: source for given, source in budget.inputs.items() if not given.startswith(OWN)}
    settings: Any = budget.settings
    if settings.match == "device_seconds":
        inputs |= _costs(builder, name, [f"{name}.{stage}" for stage in final])
    # No competitor: that it has little to train on is worth knowing, and no reason to stop the run.
    settings = settings.model_copy(update={"least_rows": 1})
    return builder.add(f"{name}.budget", "budget", {f"{OWN}{name}": rows, f"branch.{name}": rows, **inputs}, settings)


def _costs(builder: Builder, name: str, final: Sequence[str]) -> dict[str, Source]:
    """A branch's nodes as inputs: those behind its teacher and seeds, and those of its final data."""
    before = upstream(builder.nodes, final[0])
    for each in (*before, *final):
        _check_devices_are_ours(builder, each)
    inputs: dict[str, Source] = {f"before.{name}.{each}": Edge(each) for each in before}
    return inputs | {f"final.{name}.{each}": Edge(each) for each in final}


def _check_devices_are_ours(builder: Builder, name: str) -> None:
    """A node whose model is on a server spends no second that a ledger knows: its branch would have it for nothing."""
    node = builder.nodes[name]
    engine: Any = getattr(node.settings, "engine", None)
    if engine is not None and engine.kind == "openai":
        raise bad_settings(
            f"device seconds cannot be matched: {name} asks a server ({node.stage}.engine.kind: openai), whose devices "
            "are not ours",
            where=f"{builder.recipe.name}: budget.match",
            hint="match rows or tokens, or run that model here (engine.kind: vllm)",
        )
