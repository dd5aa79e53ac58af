"""Settings of random scores."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class RandomSettings(StageSettings):
    """Settings of `random`."""

    seed: int = Field(0, ge=0, description="of the scores, or of the shuffling")


SPEC = StageSpec(
    name="random",
    version=2,
    settings=RandomSettings,
    about="scores by chance, or another signal's scores shuffled: the control",
    inputs=("rows",),
    optional=("scores",),
)
