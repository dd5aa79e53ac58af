"""Settings of curation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from stages.contract.spec import StageSettings, StageSpec

WARMUP_SHARE = 0.2  # of the kept rows, where a recipe says nothing


class CurateSettings(StageSettings):
    """Which instructions are kept, and what for."""

    role: Literal["candidates", "train"] = Field(
        "candidates",
        description="candidates: split into warm-up rows and candidates to probe; train: all are for the student",
    )
    rouge_threshold: float = Field(
        0.7, gt=0, lt=1, description="drop what is closer than this (ROUGE-L F1) to a seed or a kept instruction"
    )
    least_characters: int = Field(6, ge=1, description="shorter instructions are dropped")
    most_characters: int = Field(400, ge=1, description="longer instructions are dropped")
    unsuitable_words: tuple[str, ...] | None = Field(
        None, description="words for what a text model cannot do; the built-in list if not given, [] for none"
    )
    warmup_share: float | None = Field(None, gt=0, lt=1, description="share of the kept rows for the warm-up")
    warmup_rows: int | None = Field(None, ge=1, description="or their number; 20 % if neither is given")
    most_rows: int | None = Field(None, ge=1, description="keep at most this many, chosen by whole prompts' hashes")
    least_rows: int = Field(2, ge=1, description="gate: stop the run where fewer are kept")
    seed: int = Field(0, description="of the split")

    @model_validator(mode="after")
    def _consistent(self) -> CurateSettings:
        if self.warmup_share is not None and self.warmup_rows is not None:
            raise ValueError("give warmup_share or warmup_rows, not both")
        if self.least_characters > self.most_characters:
            raise ValueError("least_characters is above most_characters")
        if self.most_rows is not None and self.most_rows < self.least_rows:
            raise ValueError("most_rows is below least_rows: the gate could never be met")
        return self


SPEC = StageSpec(
    name="curate",
    version=1,
    settings=CurateSettings,
    about="drop duplicates and unsuitable instructions, split by prompt",
    inputs=("instructions", "seeds"),
    optional=("shown",),
)
