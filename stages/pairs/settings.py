"""Settings of preference pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec

# What the two sides of a pair are: the column `kind`.
Kind = Literal["instruction", "response"]
INSTRUCTION: Kind = "instruction"
RESPONSE: Kind = "response"


class PairsSettings(StageSettings):
    """How scores become preferences."""

    optimise: Literal["instructions", "responses", "both"] = Field(
        "instructions",
        description="what the teacher learns to write: instructions of one prompt are paired, on the text that asked "
        "for them; or responses to one instruction, on the text that asked for those; or both. Montessori-Instruct: "
        "instructions; the others are its ablations",
    )

    policy: Literal["all", "best_worst", "ranked"] = Field(
        "all",
        description="all: every helpful with every harmful instruction of a prompt (the paper's); best_worst: the "
        "widest gap of each prompt, whatever the signs; ranked: every combination, the higher score chosen",
    )
    most_per_prompt: int | None = Field(
        None,
        ge=1,
        description="keep at most this many of a prompt (of an instruction, for responses), widest gap first",
    )
    least_gap_se: float = Field(
        0.0,
        ge=0,
        description="a pair's gap in its standard errors must be at least this; one of unknown standard error is none",
    )
    least_reliability: float = Field(
        0.0, ge=0, le=1, description="gate: stop the run where the instructions' mean scores are less reliable"
    )
    least_pairs: int = Field(1, ge=1, description="gate: stop the run where fewer training pairs come out")
    heldout_share: float = Field(0.1, ge=0, lt=1, description="share of pairs, by prompt, that DPO is judged on")
    seed: int = Field(0, description="of the split")


SPEC = StageSpec(
    name="pairs",
    version=2,
    settings=PairsSettings,
    about="turn scores into preference pairs of what shares a prompt",
    inputs=("scores",),
    optional=("response_scores", "responses"),
)
