"""Settings of the instructions stage."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from stages.contract.spec import StageSpec, resource
from stages.generation.prompts import names_used
from stages.generation.settings import PACKAGES, GenerationSettings

DEFAULT_TEMPLATE = Path(__file__).with_name("template.jinja").read_text()
DEFAULT_PREFILL = Path(__file__).with_name("prefill.jinja").read_text()


class InstructionsSettings(GenerationSettings):
    """How many instructions are asked for, and how."""

    prompts: int = Field(2500, ge=1, description="Prompts, each with examples of its own.")
    samples: int = Field(4, ge=1, description="Outputs of each prompt; Montessori-Instruct: 4.")
    examples: int = Field(8, ge=1, description="Instructions shown in each prompt; Montessori-Instruct: 8.")
    generated_examples: int = Field(
        2,
        ge=0,
        description="How many of the examples come from the iteration before, where there is one that kept so many; "
        "Montessori-Instruct: 2.",
    )
    template: str = Field(
        DEFAULT_TEMPLATE,
        description="The user's message, a Jinja template that may use `examples`. It must ask for an instruction "
        "between <instruction> and </instruction>; a short reason before it is allowed.",
    )
    prefill: str = Field(
        DEFAULT_PREFILL,
        description="The begun answer, a Jinja template that may use `examples`. The default begins a list with them "
        "and opens the next tag, which keeps small models to the format; an empty one leaves room for a reason first.",
    )
    least_parsed: float = resource(
        0.2,
        ge=0,
        le=1,
        description="Gate: the run stops when a smaller share of the outputs holds an instruction.",
    )

    @field_validator("template", "prefill")
    @classmethod
    def _uses_examples_only(cls, template: str) -> str:
        unknown = names_used(template) - {"examples"}
        if unknown:
            raise ValueError(f"it uses {sorted(unknown)}, and there is only `examples`")
        return template

    @model_validator(mode="after")
    def _shows_the_examples(self) -> InstructionsSettings:
        if not names_used(self.template) | names_used(self.prefill):
            raise ValueError("neither template nor prefill shows the `examples`")
        return self

    @model_validator(mode="after")
    def _leaves_room_for_seeds(self) -> InstructionsSettings:
        if self.generated_examples >= self.examples:
            raise ValueError(f"generated_examples must be fewer than examples ({self.examples})")
        return self


SPEC = StageSpec(
    name="instructions",
    version=1,
    settings=InstructionsSettings,
    about="the teacher writes new instructions",
    inputs=("seeds", "teacher"),
    optional=("previous",),
    sharded=True,
    packages=PACKAGES,
)
