"""Further students on the data that a teacher wrote for one: does what helps that one help them as well?"""

from __future__ import annotations

from collections.abc import Sequence

from flow.graph.branches import Branch
from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Source


def transfer(builder: Builder, branches: Sequence[Branch]) -> None:
    """Each student of `transfer` trained on every branch's rows, and evaluated beside itself untrained.

    Students have tokenizers of their own, so each is compared with itself only, in an evaluation of its own.
    """
    for name, student in builder.recipe.transfer.items():
        students: dict[str, Source] = {"student.base": student}
        for each in branches:
            inputs: dict[str, Source] = {"student": student, "rows": each.rows}
            students[f"student.{each.name}"] = builder.add(f"{each.name}.sft-{name}", "sft", inputs)
        builder.add(f"transfer.{name}", "evaluate", {**students, "reference": PREPARE})
