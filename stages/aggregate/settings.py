"""Settings of aggregation."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class AggregateSettings(StageSettings):
    """How scores of responses become scores of instructions."""

    level: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals of the variance components")


SPEC = StageSpec(
    name="aggregate",
    version=2,
    settings=AggregateSettings,
    about="mean score of each instruction over its responses, with variance components and reliability",
    inputs=("scores", "instructions"),
)
