"""What the report is about; a sequencer fills it in from the recipe and the graph."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec, resource


class ReportSettings(StageSettings):
    """Settings of `report`."""

    title: str = Field(description="heading of the page")
    run: str = Field("", description="name of the run")
    recipe: dict[str, Any] = resource({}, description="the recipe, fully resolved, as the page shows it")
    recipe_digest: str = Field("", description="of that recipe, wherever its models lie")
    edges: tuple[tuple[str, str, str], ...] = Field(
        (), description="the graph: [from node, to node, name of the input]"
    )
    main: str = Field("tailored", description="branch whose data and student the run is for")
    baseline: str = Field("self-instruct", description="branch that it is compared with")
    unmodified: str = Field(
        "self-instruct", description="branch of the unmodified teacher's data: what came before, where the run has it"
    )
    examples: int = Field(4, ge=0, description="preference pairs that are shown in full")


SPEC = StageSpec(
    name="report",
    version=6,
    settings=ReportSettings,
    about="one HTML page with figures, and the dataset's card",
    inputs=("node.*",),
)
