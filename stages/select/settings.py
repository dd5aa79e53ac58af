"""Settings of the selection of drafted questions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class SelectSettings(StageSettings):
    """Which drafted questions are kept."""

    role: Literal["candidates", "train"] = Field(
        "candidates", description="candidates are scored; train questions are for the student"
    )
    per_task: int = Field(250, ge=1, description="questions of each task; ARTE: 250")
    least_characters: int = Field(4, ge=1, description="shorter questions are dropped")
    most_characters: int = Field(4000, ge=1, description="longer questions are dropped")
    least_per_task: int = Field(
        1, ge=1, description="gate: stop the run where a task has fewer; fewer than per_task is a figure"
    )
    seed: int = Field(0, ge=0, description="of the choice where a task has more than per_task")


SPEC = StageSpec(
    name="select",
    version=1,
    settings=SelectSettings,
    about="drop drafted questions that repeat one another or the tasks' own",
    inputs=("instructions", "seeds"),
)
