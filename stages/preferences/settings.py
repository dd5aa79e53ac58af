"""Settings of ARTE's preference pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec


class PreferencesSettings(StageSettings):
    """Which pairs are made of the scores."""

    optimise: Literal["both", "questions", "rationales"] = Field(
        "both", description="what the teacher's training is to change; ARTE: both, and each alone as an ablation"
    )
    question_pairs: int = Field(50, ge=1, description="question pairs of each task, drawn at random; ARTE: 50")
    quarter: float = Field(
        0.25, gt=0, le=0.5, description="share of a task's questions at either end that they are drawn from; ARTE: 0.25"
    )
    rationale_pairs: int = Field(
        250, ge=1, description="rationale pairs of each task at most, widest gap first; ARTE: 250"
    )
    heldout_share: float = Field(0.1, ge=0, lt=1, description="share of pairs, by prompt, that DPO is judged on")
    least_pairs: int = Field(1, ge=1, description="gate: stop the run where fewer training pairs come out")
    seed: int = Field(0, ge=0, description="of the drawn pairs and of the split")


SPEC = StageSpec(
    name="preferences",
    version=2,
    settings=PreferencesSettings,
    about="question pairs of each task and rationale pairs of each question, by in-context score",
    inputs=("scores", "rows", "questions"),
)
