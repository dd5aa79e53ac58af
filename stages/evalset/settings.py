"""Which questions students answer to be judged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec
from stages.harness.settings import HarnessSettings
from stages.prepare.settings import Source


class EvalsetSettings(StageSettings):
    """Settings of `evalset`."""

    which: Literal["winrate", "mtbench", "harness"] = Field(
        "winrate", description="set by the graph: the questions of which benchmark this node reads"
    )
    winrate: Source | None = Field(
        None,
        description="rows with an instruction, to be answered and compared in pairs (AlpacaEval: its 805), each with a "
        "`difficulty` if the length-controlled rate is to use it, as AlpacaEval 2 publishes them; without a source the "
        "held-out reference rows",
    )
    mtbench: Source = Field(
        Source(uri="builtin:turns"),
        description="rows as MT-Bench has them: question_id, category, turns (two texts), reference (two, or none). "
        "builtin:turns are eight of our own, to try it with; MT-Bench's 80 are not bundled: give their JSONL",
    )
    harness: HarnessSettings | None = Field(
        None, description="set by the graph: the section harness, whose tasks' documents are read to be compared with"
    )
    limit: int | None = Field(None, ge=1, description="ask at most so many questions, from the top")


SPEC = StageSpec(
    name="evalset",
    version=2,
    settings=EvalsetSettings,
    about="the questions that students answer to be judged",
    optional=("reference",),
)
