"""Settings of `winrate`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.generation.settings import PACKAGES
from stages.judging.settings import JudgingSettings

DEFAULT_TEMPLATE = Path(__file__).with_name("template.jinja").read_text()


class WinrateSettings(JudgingSettings):
    """Settings of `winrate`."""

    shown: ClassVar[frozenset[str]] = frozenset({"instruction", "answer_a", "answer_b"})

    baseline: str = Field("base", description="set by the graph: the student that every other one is compared with")
    template: str = Field(
        DEFAULT_TEMPLATE,
        description="What the judge is asked: a Jinja template with `instruction`, `answer_a` and `answer_b`. Its "
        "answer must hold [[A]], [[B]] or [[C]] (a tie).",
    )


SPEC = StageSpec(
    name="winrate",
    version=2,
    settings=WinrateSettings,
    about="a judge compares students' answers with the baseline's, in both orders",
    inputs=("replies.*", "judge"),
    sharded=True,
    packages=PACKAGES,
)
