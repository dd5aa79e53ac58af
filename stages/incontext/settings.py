"""Settings of in-context scoring."""

from __future__ import annotations

from pydantic import Field

from stages.asking.settings import AskingSettings
from stages.contract.spec import StageSpec, resource
from stages.generation.settings import PACKAGES


class IncontextSettings(AskingSettings):
    """How candidates are scored."""

    least_parsed: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a candidate after which a smaller share of the answers can be parsed has no score; one after "
        "which none can never has",
    )
    chunk_rows: int = resource(
        16, ge=1, description="Candidates scored together and committed as one: each asks the whole preference set."
    )


SPEC = StageSpec(
    name="incontext",
    version=3,
    settings=IncontextSettings,
    about="score candidates by the student's answers with each as its one example",
    inputs=("rows", "student", "tasks", "preference"),
    sharded=True,
    packages=PACKAGES,
)
