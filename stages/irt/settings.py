"""Settings of the choice of a preference set."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class IrtSettings(StageSettings):
    """How many questions a preference set has."""

    size: int = Field(40, ge=1, description="questions of each task; ARTE: 40")
    fill: bool = Field(
        True,
        description="whether questions that everybody answers alike fill the set where too few others are left; how "
        "many did is a figure",
    )
    least: int = Field(
        1, ge=1, description="gate: stop the run where a task's set is smaller; smaller than `size` is a figure"
    )


SPEC = StageSpec(
    name="irt",
    version=2,
    settings=IrtSettings,
    about="choose each task's most discriminative questions by a two-parameter logistic model",
    inputs=("tasks", "answers.*"),
    packages=("scipy",),
)
