"""Settings that every training stage has. The stages give them their papers' values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.contract.spec import StageSettings, resource

Dtype = Literal["float32", "bfloat16"]
AutoDtype = Literal["auto"] | Dtype
Share = Annotated[float, Field(ge=0, le=1)]

# Distributions whose version changes what training gives.
PACKAGES = ("torch", "transformers", "trl", "deepspeed")


class Schedule(BaseModel):
    """The learning rate over the steps, as a multiple of `learning_rate`. See stages/training/schedules.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["constant", "linear", "cosine", "wsd", "rising"] = Field(
        description="constant; linear or cosine decay to min_ratio; wsd (warm-up, stable, cosine decay to min_ratio); "
        "rising (linear, up to learning_rate at the last step: what a warm-up for influence uses)."
    )
    warmup: Share = Field(0.0, description="Share of the steps over which the rate first rises; not for rising.")
    decay: Share = Field(0.4, description="Share of the steps over which wsd decays; what is left is stable.")
    min_ratio: Share = Field(0.0, description="Where linear, cosine and wsd end, as a share of learning_rate.")

    @model_validator(mode="after")
    def _shares_fit(self) -> Schedule:
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} are more than all steps")
        if self.kind == "rising" and self.warmup:
            raise ValueError("a rising schedule has no warmup: it rises to the end")
        return self


class TrainingSettings(StageSettings):
    """AdamW on token ids, as trl and DeepSpeed do it."""

    learning_rate: float = Field(gt=0, description="AdamW's learning rate at the schedule's top.")
    schedule: Schedule = Field(description="The learning rate over the steps.")
    epochs: float = Field(
        1.0, gt=0, description="Passes over the rows. The last batch is filled up from the next pass's order."
    )
    batch: int = Field(ge=1, description="Rows (or pairs) of one optimiser step, over all ranks and micro-batches.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled decay of every parameter alike; the paper: 0.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]] = Field(
        (0.9, 0.999), description="AdamW's decay rates of the first and second moment."
    )
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    max_grad_norm: float = Field(
        1.0, ge=0, description="Gradients are scaled down to this norm; 0 leaves them as they are."
    )
    max_tokens: int = Field(
        1024,
        ge=8,
        description="Longest row, prompt included; a longer one is dropped and counted, never cut.",
    )
    dtype: AutoDtype = Field(
        "auto",
        description="Precision of forward and backward; auto is bfloat16, and float32 on a CPU that only emulates it. "
        "With bfloat16 DeepSpeed keeps master weights, moments and accumulated gradients in fp32. Pods of one training "
        "on different processors need it named.",
    )
    seed: int = Field(42, ge=0, description="Seed of the order of the rows.")

    ranks: int | None = resource(
        None,
        ge=1,
        description="Processes on each machine (pod); by default one a GPU, as far as the batch can be dealt out.",
    )
    micro_batch: int = resource(
        4,
        ge=1,
        description="At most so many rows a rank computes at once; batch is made of several if need be.",
    )
    zero_stage: Literal[2, 3] = resource(
        2,
        description="DeepSpeed ZeRO: 2 shards optimiser state and gradients over the ranks, 3 the weights as well.",
    )
    gradient_checkpointing: bool = resource(
        False, description="Recompute activations in the backward pass: a third more time, far less memory."
    )
    checkpoint_minutes: float = resource(
        5.0,
        gt=0,
        description="Minutes between checkpoints in the store, from which a killed training goes on.",
    )
    checkpoint_steps: int | None = resource(
        None, ge=1, description="Steps between checkpoints, instead of checkpoint_minutes."
    )
