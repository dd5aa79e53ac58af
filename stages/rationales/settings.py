"""Settings of the rationales stage, and the reasoning prompts of the tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.contract.errors import bad_settings
from stages.contract.spec import StageSpec, resource
from stages.generation.settings import PACKAGES, GenerationSettings, SamplingSettings

DEFAULT = "default"  # the prompts of a task that has none of its own


class TaskPrompts(BaseModel):
    """What stands behind a task's questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    naive: str = Field("Let's think step by step.", min_length=1, description="what DPO and the student's data use")
    reasoning: tuple[str, ...] = Field(
        min_length=1, description="the ways of reasoning that candidates are written with; ARTE: 4 a task"
    )

    @field_validator("reasoning")
    @classmethod
    def _different(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(prompts)) < len(prompts) or not all(each.strip() for each in prompts):
            raise ValueError("reasoning prompts are different texts, none of them empty")
        return prompts


BUILT_IN = {
    DEFAULT: TaskPrompts(
        naive="Let's think step by step.",
        reasoning=(
            "Let's think step by step.",
            "First name the rule that the question is about, then apply it to what is given.",
            "Break the question into small parts, settle each of them, and put the results together.",
            "Work it out briefly, then check the result against every part of the question.",
        ),
    )
}


class RationalesSettings(GenerationSettings):
    """How drafted questions are answered."""

    style: Literal["reasoning", "naive"] = Field(
        "reasoning",
        description="reasoning: one rationale a reasoning prompt, to be scored; naive: `samples` with the naive "
        "prompt, for the student's data",
    )
    prompts: str | dict[str, TaskPrompts] = Field(
        BUILT_IN,
        description="reasoning prompts by task: a folder beside the recipe with a file TASK.yaml for each task (naive, "
        f"reasoning) and one {DEFAULT}.yaml for the others, or the same as a mapping",
    )
    ending: str = Field(
        'End with "So the answer is" and the answer.',
        description="put behind every prompt: answers are looked for there",
    )
    prefill: str = Field("", description="The begun answer; it is part of what the student is trained on.")
    shots: int = Field(
        0, ge=0, description="seed questions with their answers shown before; small teachers need them to keep the form"
    )
    samples: int = Field(1, ge=1, description="style naive: rationales of each question")
    sampling: SamplingSettings = Field(
        SamplingSettings(max_tokens=512), description="How tokens are drawn; ARTE: temperature 1.0."
    )
    keep_truncated: bool = Field(False, description="Whether a rationale that was cut at max_tokens is usable.")
    least_usable: float = resource(
        0.2, ge=0, le=1, description="Gate: the run stops when a smaller share of the rationales is usable."
    )

    def of_task(self, task: str) -> TaskPrompts | None:
        """The prompts of a task, its own or the default ones; None where there are neither.

        Raises:
            StageError: BAD_SETTINGS for a folder that no sequencer has read: a container does not see it.
        """
        if isinstance(self.prompts, str):
            raise bad_settings(
                f"the folder {self.prompts!r} was not read",
                where="rationales.prompts",
                hint="montessori run and submit read it; a task by hand has the prompts themselves",
            )
        return self.prompts.get(task) or self.prompts.get(DEFAULT)


SPEC = StageSpec(
    name="rationales",
    version=3,
    settings=RationalesSettings,
    about="the teacher answers the questions with its reasoning",
    inputs=("instructions", "seeds", "teacher"),
    sharded=True,
    packages=PACKAGES,
)
