"""Settings of `dpo`. The defaults are Montessori-Instruct's (arXiv 2410.14208, appendix)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSpec, resource
from stages.training.settings import PACKAGES, AutoDtype, Schedule, TrainingSettings

Loss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip


class DpoSettings(TrainingSettings):
    """Settings of `dpo`."""

    learning_rate: float = Field(
        1e-6,
        gt=0,
        description="AdamW's learning rate at the schedule's top. Montessori-Instruct: 1e-6; ARTE: 1e-7.",
    )
    schedule: Schedule = Field(
        Schedule(kind="wsd", warmup=0.1, decay=0.4, min_ratio=1e-3),
        description="The learning rate over the steps. Montessori-Instruct: wsd 0.1/0.5/0.4 down to 1e-3 of it; "
        "ARTE: cosine after a warm-up of 0.1.",
    )
    batch: int = Field(2, ge=1, description="Pairs of one optimiser step. Montessori-Instruct: 2; ARTE: 16.")
    beta: float = Field(0.1, gt=0, description="How strongly the teacher is held to what it was. The paper: 0.1.")
    loss_type: tuple[Loss, ...] = Field(
        ("sigmoid",),
        min_length=1,
        description="trl's DPO losses, summed; sigmoid is DPO's own (arXiv 2305.18290).",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Share of pairs taken to be the wrong way round, for robust and exo_pair.",
    )
    closing: str = Field(
        "</instruction>",
        description="Text that ends an output; put behind one that lacks it, so that the teacher goes on writing it.",
    )
    save_dtype: AutoDtype = Field("auto", description="Precision of the published weights; auto is the teacher's own.")
    checkpoints: int = Field(
        0,
        ge=0,
        le=16,
        description="Publish the teacher after so many of its steps as well, evenly apart. Data are generated from "
        "each, measured and trained on, and the report shows them against the teacher's progress: a branch each.",
    )
    micro_batch: int = resource(
        1,
        ge=1,
        description="At most so many pairs a rank computes at once; batch is made of several if need be.",
    )


SPEC = StageSpec(
    name="dpo",
    version=2,
    settings=DpoSettings,
    about="train the teacher on preference pairs (trl, DeepSpeed)",
    inputs=("teacher", "pairs"),
    launch="torchrun",
    packages=PACKAGES,
)
