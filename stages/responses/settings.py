"""Settings of the responses stage."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSpec, resource
from stages.generation.settings import PACKAGES, GenerationSettings, ResponseSampling


class ResponsesSettings(GenerationSettings):
    """How many responses each instruction gets, and which of them count."""

    sampling: ResponseSampling = Field(ResponseSampling(), description="How tokens are drawn.")
    samples: int = Field(
        4,
        ge=1,
        description="Responses to each candidate instruction. The papers take 1; a score is measured on one response, "
        "and the mean over several says more about the instruction.",
    )
    warmup_samples: int = Field(1, ge=1, description="Responses to each instruction of the warm-up split.")
    train_samples: int = Field(1, ge=1, description="Responses to each instruction of the student's training data.")
    keep_truncated: bool = Field(False, description="Whether a response that was cut at max_tokens is usable.")
    least_usable: float = resource(
        0.2, ge=0, le=1, description="Gate: the run stops when a smaller share of the responses is usable."
    )

    def samples_of(self, split: str) -> int:
        """Responses to an instruction of a split: `candidate`, `warmup` or `train`."""
        return {"candidate": self.samples, "warmup": self.warmup_samples, "train": self.train_samples}[split]


SPEC = StageSpec(
    name="responses",
    version=2,
    settings=ResponsesSettings,
    about="the teacher answers the instructions",
    inputs=("instructions", "teacher"),
    sharded=True,
    packages=PACKAGES,
)
