"""Settings of the influence probes, and of the audit that shares them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from stages.contract.spec import StageSettings, StageSpec, resource

PACKAGES = ("torch", "transformers")


def varlen_needs_bf16(attention: str, key: str, dtype: str) -> None:
    """Raises ValueError where the flash kernel, which has no fp32, would never be used."""
    if attention == "varlen" and dtype == "float32":
        raise ValueError(f"attention: varlen needs {key}: bfloat16; in float32 set attention: segments")


class ProbeSettings(StageSettings):
    """How one probe computes; docs/stages/influence.md explains them."""

    lr: float | None = Field(
        None, gt=0, description="learning rate of the probe's step; the warm-up's last if not given"
    )
    baseline: Literal["before_step", "zero_gradient_step"] = Field(
        "zero_gradient_step",
        description="what a score is measured against: the weights before the step (the paper's), or after a step with "
        "a zero gradient, which leaves out the drift that momentum adds to every score alike",
    )
    reduction: Literal["token", "row"] = Field("token", description="the reference loss: mean over tokens or over rows")
    forward_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="weights of the exact reference pass; gradients and updates are fp32 always"
    )
    products: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="how the exact reference pass multiplies fp32 matrices; on a GPU tf32 is many times as fast, and "
        "the audit's noise, measured in the same products, says what it costs",
    )
    max_tokens: int = Field(1024, ge=8, description="longer rows lose their end")
    gradient_groups: int = Field(
        8, ge=0, description="groups of reference rows behind first order's standard error; each is a model in memory"
    )
    corrected_groups: int = Field(
        2,
        ge=0,
        description="of these, the groups on which a candidate that decides pairs is evaluated exactly, what first "
        "order misses there being carried over to the others; 0 (or all) evaluates it on every row",
    )
    gradient_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="in which the reference gradient is kept; it is summed in fp32"
    )
    attention: Literal["segments", "varlen", "padded"] = resource(
        "segments",
        description="how rows share a pass: packed with attention by segments (any device), packed with a "
        "variable-length kernel (on a GPU, and only passes in bfloat16), or padded",
    )
    pack_tokens: int = resource(1024, ge=8, description="tokens of a packed row")
    chunk: int = resource(256, ge=1, description="labels whose logits exist at once")
    gradient_checkpointing: bool = resource(
        False, description="compute layers again in the backward pass: less memory, a third more time"
    )
    cuda_graphs: bool = resource(
        True, description="on a GPU: ask for the kernels of a step or a pass together, not one by one"
    )
    ranks: int | None = resource(
        None,
        ge=1,
        description="processes that share the student by ZeRO-3 within a shard; one if it fits one GPU, else all GPUs",
    )

    @field_validator("corrected_groups")
    @classmethod
    def _two_or_none(cls, groups: int) -> int:
        if groups == 1:
            raise ValueError("one group alone has no error to state: 0, or at least 2")
        return groups

    @model_validator(mode="after")
    def _kernel_has_the_dtype(self) -> Self:
        varlen_needs_bf16(self.attention, "forward_dtype", self.forward_dtype)
        return self


class InfluenceSettings(ProbeSettings):
    """Which scores are computed for which candidates."""

    method: Literal["exact", "first_order", "two_stage"] = Field(
        "two_stage",
        description="exact: a reference pass a candidate; first_order: one backward a candidate; two_stage: first "
        "order on all, corrected for those that decide pairs (corrected_groups), or exact on all where the audit says "
        "so",
    )
    per_side: int = Field(
        1, ge=1, description="two_stage: instructions at either end of a prompt that are corrected, at least"
    )
    chunk_rows: int = resource(8, ge=1, description="prompts of one committed chunk")


SPEC = StageSpec(
    name="influence",
    version=5,
    settings=InfluenceSettings,
    about="what one optimiser step on each candidate does to the student's reference loss",
    inputs=("rows", "checkpoint", "reference"),
    optional=("audit",),
    sharded=True,
    packages=PACKAGES,
)
