"""The questions of benchmarks: read once, compared with what teachers write, and later answered by students."""

from __future__ import annotations

from typing import Any

from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Edge


def questions(builder: Builder, benchmark: str) -> Edge:
    """The node that reads a benchmark's questions; of lm-eval's tasks, which ask their own, to be compared with."""
    changes: dict[str, Any] = {"which": benchmark}
    if benchmark == "harness":
        changes |= {"harness": builder.recipe.section("harness"), "limit": None}
    settings = builder.recipe.section("evalset").model_copy(update=changes)
    return builder.share(f"{benchmark}.evalset", "evalset", {"reference": PREPARE}, settings)


def watched(builder: Builder) -> dict[str, Edge]:
    """Inputs of `diversity`: the sets of questions, beside the held-out rows, that generated rows must not repeat."""
    evalset: Any = builder.recipe.section("evalset")
    own = list(builder.recipe.benchmarks)
    if evalset.winrate is None and "winrate" in own:
        own.remove("winrate")  # its questions are the held-out rows
    return {f"evaluation.{benchmark}": questions(builder, benchmark) for benchmark in own}
