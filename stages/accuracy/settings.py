"""Settings of accuracy."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class AccuracySettings(StageSettings):
    """How intervals are made."""

    resamples: int = Field(2_000, ge=100, description="bootstrap resamples of the questions, task by task")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


SPEC = StageSpec(
    name="accuracy",
    version=3,
    settings=AccuracySettings,
    about="exact match of the students' answers by task, category and number of examples",
    inputs=("tasks", "answers.*"),
)
