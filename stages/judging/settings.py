"""Settings of every stage in which a model judges answers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from stages.contract.spec import resource
from stages.generation.prompts import names_used
from stages.generation.settings import GenerationSettings, SamplingSettings


class JudgeSampling(SamplingSettings):
    """A judge is asked for its likeliest opinion."""

    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy, as AlpacaEval and MT-Bench judge.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")


class JudgingSettings(GenerationSettings):
    """The judge: the recipe's `judge` model in an engine, or a server behind OpenAI's API (`engine.kind: openai`)."""

    shown: ClassVar[frozenset[str]]  # the names that a template may use

    sampling: JudgeSampling = Field(JudgeSampling(), description="How the judge's tokens are drawn.")
    template: str = Field(description="What the judge is asked, a Jinja template.")
    least_parsed: float = resource(
        0.5, ge=0, le=1, description="Gate: the run stops when a smaller share of the judge's answers can be read."
    )

    @field_validator("template")
    @classmethod
    def _shows_what_is_judged(cls, template: str) -> str:
        used, known = names_used(template), cls.shown
        if used - known:
            raise ValueError(f"it uses {sorted(used - known)}, and there is {sorted(known)}")
        return template
