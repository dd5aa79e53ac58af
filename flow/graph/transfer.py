"""Further students on the data that a teacher wrote for one: does what helps that one help them as well?"""

from __future__ import annotations

from collections.abc import Sequence

from flow.graph.branches import Branch
from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Source
from flow.graph.students import train
from stages.evaluate.names import replica


def transfer(builder: Builder, branches: Sequence[Branch]) -> None:
    """Each student of `transfer` trained on every branch's rows, once with each seed, and evaluated beside itself
    untrained.

    Students have tokenizers of their own, so each is compared with itself only, in an evaluation of its own.
    """
    for name, student in builder.recipe.transfer.items():
        students: dict[str, Source] = {"student.base": student}
        for each in branches:
            for seed, trained in train(builder, each.name, student, each.rows, name).items():
                students[f"student.{replica(each.name, seed)}"] = trained
        builder.add(f"transfer.{name}", "evaluate", {**students, "reference": PREPARE})
