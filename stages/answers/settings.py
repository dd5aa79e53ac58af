"""Settings of the answers stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from stages.asking.settings import AskingSettings
from stages.contract.spec import StageSpec
from stages.generation.settings import PACKAGES


class AnswersSettings(AskingSettings):
    """Which questions are asked, after how many examples."""

    role: Literal["validation", "test"] = Field("test", description="which of the tasks' questions are asked")
    shots: tuple[Annotated[int, Field(ge=0, le=32)], ...] = Field(
        (0, 3),
        min_length=1,
        description="numbers of examples; the examples are seeds, the same for every question of a task. ARTE: 0 and "
        "3, and 0 to 3 for choosing the preference set",
    )

    @field_validator("shots")
    @classmethod
    def _in_order(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(shots)) < len(shots):
            raise ValueError("a number of shots is named twice")
        return tuple(sorted(shots))


SPEC = StageSpec(
    name="answers",
    version=3,
    settings=AnswersSettings,
    about="a model answers the tasks' questions, after several numbers of examples",
    inputs=("tasks", "student"),
    sharded=True,
    packages=PACKAGES,
)
