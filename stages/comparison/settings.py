"""Settings of `comparison`."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class ComparisonSettings(StageSettings):
    """Settings of `comparison`."""

    baseline: str = Field("base", description="set by the graph: the student that the others are compared with")
    left_out: tuple[str, ...] = Field(
        (), description="set by the graph: students that are measured for another purpose and are no competitors"
    )
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of questions and training seeds")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    length_prior: float = Field(
        0.1,
        ge=0,
        description="precision of the normal prior, around 0, on the length coefficient of the length-controlled win "
        "rate: keeps it finite where few comparisons say little about length",
    )


SPEC = StageSpec(
    name="comparison",
    version=3,
    settings=ComparisonSettings,
    about="all students by all measures, with paired intervals",
    optional=("losses", "winrate", "mtbench", "harness", "accuracy"),
)
