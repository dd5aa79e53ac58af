"""How a student answers the questions that it is judged on."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.generation.settings import PACKAGES, GenerationSettings, SamplingSettings

# FastChat's, by MT-Bench's categories (llm_judge/common.py, temperature_config).
MTBENCH_TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0, "stem": 0.1,
    "humanities": 0.1, "arena-hard-200": 0.0,
}  # fmt: skip


class ReplySampling(SamplingSettings):
    """Sampling of judged replies."""

    temperature: float = Field(0.7, ge=0, le=2, description="Of questions whose category has no temperature; FastChat.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")


class RepliesSettings(GenerationSettings):
    """Settings of `replies`."""

    sampling: ReplySampling = Field(ReplySampling(), description="How tokens are drawn.")
    temperatures: dict[str, float] = Field(
        MTBENCH_TEMPERATURES, description="Temperature by the question's category; MT-Bench's own."
    )

    def sampling_of(self, category: str) -> SamplingSettings:
        return self.sampling.model_copy(
            update={"temperature": self.temperatures.get(category, self.sampling.temperature)}
        )


SPEC = StageSpec(
    name="replies",
    version=3,
    settings=RepliesSettings,
    about="a student answers the questions that it is judged on",
    inputs=("questions", "model"),
    sharded=True,
    packages=PACKAGES,
)
