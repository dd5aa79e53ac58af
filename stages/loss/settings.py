"""Settings of the loss signal."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.contract.spec import StageSettings, StageSpec, resource
from stages.influence.settings import varlen_needs_bf16


class LossSettings(StageSettings):
    """Settings of `loss`."""

    max_tokens: int = Field(1024, ge=8, description="longer rows lose their end")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of weights and forward passes")
    attention: Literal["segments", "varlen", "padded"] = resource(
        "segments", description="how rows share a pass; padded for models with their own attention code"
    )
    pack_tokens: int = resource(1024, ge=8, description="tokens of a packed row")
    chunk_rows: int = resource(64, ge=1, description="candidates of one committed chunk")

    @model_validator(mode="after")
    def _kernel_has_the_dtype(self) -> Self:
        varlen_needs_bf16(self.attention, "precision", self.precision)
        return self


SPEC = StageSpec(
    name="loss",
    version=3,
    settings=LossSettings,
    about="the student's loss on each candidate: what it gets wrong",
    inputs=("rows", "student"),
    sharded=True,
    packages=("torch", "transformers"),
)
