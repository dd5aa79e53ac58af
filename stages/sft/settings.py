"""Settings of `sft`. The defaults are Montessori-Instruct's (arXiv 2410.14208, appendix)."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.training.settings import PACKAGES, AutoDtype, Schedule, TrainingSettings


class SftSettings(TrainingSettings):
    """Settings of `sft`."""

    learning_rate: float = Field(
        5e-6,
        gt=0,
        description="AdamW's learning rate at the schedule's top. Montessori-Instruct: 5e-6; ARTE: 2e-5.",
    )
    schedule: Schedule = Field(
        Schedule(kind="wsd", warmup=0.1, decay=0.4, min_ratio=1e-4),
        description="The learning rate over the steps. Montessori-Instruct: wsd 0.1/0.5/0.4 down to 1e-4 of it; "
        "ARTE: linear after a warm-up of 0.03.",
    )
    batch: int = Field(32, ge=1, description="Rows of one optimiser step. Montessori-Instruct: 32.")
    rows: int | None = Field(
        None,
        ge=1,
        description="Train on so many of the usable rows that fit max_tokens, those with the smallest response_id (a "
        "hash, so a random choice), or on all; for students that are compared on equal amounts. Montessori-Instruct: "
        "10,000.",
    )
    save_dtype: AutoDtype = Field("auto", description="Precision of the published weights; auto is the student's own.")


SPEC = StageSpec(
    name="sft",
    version=4,
    settings=SftSettings,
    about="train the student on instructions and responses (trl, DeepSpeed)",
    inputs=("student", "rows"),
    launch="torchrun",
    packages=PACKAGES,
)
