"""Settings of the judge signal."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from stages.contract.spec import StageSpec, resource
from stages.generation.prompts import names_used
from stages.generation.settings import PACKAGES, GenerationSettings, SamplingSettings

RUBRIC = Path(__file__).with_name("rubric.jinja").read_text()


class JudgeSampling(SamplingSettings):
    """Sampling of ratings: drawn, so that several of them can be averaged, and no longer than a short reason."""

    temperature: float = Field(0.7, ge=0, le=2, description="0 would give the same rating every time.")
    max_tokens: int = Field(256, ge=1, description="Room for the reason and the score.")


class JudgeSettings(GenerationSettings):
    """What is asked about each candidate, and how often."""

    sampling: JudgeSampling = Field(JudgeSampling(), description="How tokens are drawn.")
    samples: int = Field(
        3, ge=1, description="Ratings of each response; the score is their mean, its standard error from their spread."
    )
    template: str = Field(
        RUBRIC,
        description="The user's message, a Jinja template that may use `instruction` and `response`. It must ask for "
        "an answer that ends in `Score: N`. The default is Self-Reward's additive rubric (arXiv 2401.10020, figure 2).",
    )
    prefill: str = Field(
        "",
        description="The begun answer. `Score:` keeps a small judge to the format, at the price of its reason.",
    )
    most: int = Field(5, ge=1, description="The highest rating that the template allows; the lowest is 0.")
    least_parsed: float = resource(
        0.5, ge=0, le=1, description="Gate: the run stops when a smaller share of the answers holds a rating."
    )

    @field_validator("template")
    @classmethod
    def _shows_the_candidate(cls, template: str) -> str:
        used = names_used(template)
        if used - {"instruction", "response"}:
            raise ValueError(f"it uses {sorted(used)}, and there is `instruction` and `response`")
        if "response" not in used and "instruction" not in used:
            raise ValueError("it shows neither `instruction` nor `response`")
        return template

    @model_validator(mode="after")
    def _samples_differ(self) -> JudgeSettings:
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError("several samples at temperature 0 are all the same: samples 1, or a temperature above 0")
        return self


SPEC = StageSpec(
    name="judge",
    version=1,
    settings=JudgeSettings,
    about="a model rates each candidate from 0 to 5",
    inputs=("rows", "judge"),
    sharded=True,
    packages=PACKAGES,
)
