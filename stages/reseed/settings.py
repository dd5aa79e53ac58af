"""Settings of reseeding."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class ReseedSettings(StageSettings):
    """Which instructions become seeds."""

    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the scored instructions, the highest scores first; Montessori-Instruct's bootstrap: 0.5",
    )
    least_seeds: int = Field(
        8, ge=1, description="gate: stop the run where fewer come out; a prompt shows instructions.examples of them"
    )


SPEC = StageSpec(
    name="reseed",
    version=1,
    settings=ReseedSettings,
    about="the best-scored instructions as seeds of the next generation",
    inputs=("scores",),
)
