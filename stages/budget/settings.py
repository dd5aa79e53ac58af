"""Settings of the budget."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec, resource

Match = Literal["rows", "tokens", "device_seconds", "none"]
OWN = "own."  # the one input whose rows are cut; the `branch.` inputs are what all branches have


class BudgetSettings(StageSettings):
    """What compared branches have in common."""

    match: Match = Field(
        "rows",
        description="what every branch's student gets the same of: training rows; response tokens, as the teacher "
        "counted them; device seconds that making the data took (candidates, probes and teacher training included, "
        "each branch as if alone); none: each trains on all that it has",
    )
    least_rows: int = Field(1, ge=1, description="gate: stop the run where the budget leaves a branch fewer rows")
    prompts: dict[str, int] = resource(
        {},
        description="prompts of a branch's final data where they differ from the others', such as {self-instruct: "
        "5000}: at equal device seconds a branch without probes can afford more of them",
    )


SPEC = StageSpec(
    name="budget",
    version=1,
    settings=BudgetSettings,
    about="cut a branch's training rows to the budget that all branches can afford",
    inputs=(f"{OWN}*", "branch.*"),
    optional=("before.*", "final.*"),
)
