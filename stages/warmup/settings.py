"""Settings of `warmup`. The defaults are Montessori-Instruct's (arXiv 2410.14208, appendix)."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.training.settings import PACKAGES, AutoDtype, Schedule, TrainingSettings


class WarmupSettings(TrainingSettings):
    """Settings of `warmup`."""

    learning_rate: float = Field(
        5e-6,
        gt=0,
        description="AdamW's learning rate at the last step, and that of every probe. The paper: 5e-6.",
    )
    schedule: Schedule = Field(
        Schedule(kind="rising"), description="The learning rate over the steps. The paper: rising to the end."
    )
    batch: int = Field(4, ge=1, description="Rows of one optimiser step. The paper: 4 a GPU.")
    dtype: AutoDtype = Field(
        "float32",
        description="Precision of forward and backward; auto is bfloat16, and float32 on a CPU that only emulates it. "
        "Master weights and moments are fp32 either way, but bfloat16 rounds the student's weights once before the "
        "first step.",
    )


SPEC = StageSpec(
    name="warmup",
    version=2,
    settings=WarmupSettings,
    about="train the student on few rows; publish its weights and AdamW state in fp32",
    inputs=("student", "rows"),
    launch="torchrun",
    packages=PACKAGES,
)
