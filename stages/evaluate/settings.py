"""How students are measured on the held-out reference rows."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.contract.spec import StageSettings, StageSpec, resource
from stages.influence.settings import varlen_needs_bf16


class EvaluateSettings(StageSettings):
    """Settings of `evaluate`."""

    max_tokens: int = Field(1024, ge=8, description="longest example; a longer response loses its end")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of weights and forward passes")
    attention: Literal["segments", "varlen", "padded"] = Field(
        "segments",
        description="how packed rows are attended to; padded for models with their own attention code",
    )
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples of reference rows and training seeds")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of the intervals")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    pack_tokens: int = resource(2048, ge=8, description="tokens of one packed forward pass")

    @model_validator(mode="after")
    def _kernel_has_the_dtype(self) -> Self:
        varlen_needs_bf16(self.attention, "precision", self.precision)
        return self


SPEC = StageSpec(
    name="evaluate",
    version=3,
    settings=EvaluateSettings,
    about="the students' loss on the held-out reference rows, with intervals",
    inputs=("student.*", "reference"),
    packages=("torch", "transformers"),
)
