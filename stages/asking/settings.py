"""How a student is asked."""

from __future__ import annotations

from pydantic import Field

from stages.contract.spec import StageSettings, resource
from stages.generation.settings import EngineSettings


class AskingSettings(StageSettings):
    """Greedy answers, with no more tokens than they need."""

    engine: EngineSettings = Field(EngineSettings(), description="What runs the student.")
    system: str | None = Field(None, description="System message; without one the chat template's own default stands.")
    reasoning_tokens: int = Field(
        0,
        ge=0,
        description="Tokens that the student may reason with before it answers. With 0 its turn begins with `begun` "
        "and it writes the answer alone, which takes a handful of tokens.",
    )
    begun: str = Field("So the answer is", description="The begun turn of a student that does not reason first.")
    chunk_rows: int = resource(64, ge=1, description="Input rows asked together and committed as one.")
