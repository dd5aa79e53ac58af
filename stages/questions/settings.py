"""Settings of the questions stage."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from stages.contract.spec import StageSpec, resource
from stages.generation.prompts import names_used
from stages.generation.settings import PACKAGES, GenerationSettings

DEFAULT_TEMPLATE = Path(__file__).with_name("template.jinja").read_text()
NAMES = {"about", "examples", "more"}


class QuestionsSettings(GenerationSettings):
    """How many questions are drafted, and how."""

    prompts: int = Field(60, ge=1, description="Prompts of each task, each with examples of its own.")
    examples: int = Field(3, ge=1, description="Seed questions shown in each prompt; ARTE: 3.")
    more: int = Field(5, ge=1, description="Questions asked for, and read at most, from each prompt; ARTE: 5.")
    template: str = Field(
        DEFAULT_TEMPLATE,
        description="The user's message, a Jinja template that may use `about`, `examples` and `more`. It must ask for "
        "questions between <question> and </question>.",
    )
    prefill: str = Field(
        "<question>",
        description="The begun answer, a Jinja template with the same names. One that begins the list with the "
        "examples keeps a small model to the format.",
    )
    least_parsed: float = resource(
        0.2, ge=0, le=1, description="Gate: the run stops when a smaller share of the questions asked for is there."
    )

    @field_validator("template", "prefill")
    @classmethod
    def _uses_known_names(cls, template: str) -> str:
        unknown = names_used(template) - NAMES
        if unknown:
            raise ValueError(f"it uses {sorted(unknown)}, and there is only {', '.join(sorted(NAMES))}")
        return template

    @model_validator(mode="after")
    def _shows_the_examples(self) -> QuestionsSettings:
        if "examples" not in names_used(self.template) | names_used(self.prefill):
            raise ValueError("neither template nor prefill shows the `examples`")
        return self


SPEC = StageSpec(
    name="questions",
    version=1,
    settings=QuestionsSettings,
    about="the teacher drafts new questions of each task",
    inputs=("seeds", "teacher"),
    sharded=True,
    packages=PACKAGES,
)
