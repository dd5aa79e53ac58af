"""Settings of `mtbench`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.generation.settings import PACKAGES
from stages.judging.settings import JudgingSettings

DEFAULT_TEMPLATE = Path(__file__).with_name("template.jinja").read_text()


class MtbenchSettings(JudgingSettings):
    """Settings of `mtbench`."""

    shown: ClassVar[frozenset[str]] = frozenset({"turns"})

    template: str = Field(
        DEFAULT_TEMPLATE,
        description="What the judge is asked: a Jinja template with `turns`, a list of question, reference (or none) "
        "and answer, the last of which is graded. Its answer must hold [[GRADE]], from 1 to 10.",
    )


SPEC = StageSpec(
    name="mtbench",
    version=1,
    settings=MtbenchSettings,
    about="a judge grades each turn of students' answers from 1 to 10",
    inputs=("replies.*", "judge"),
    sharded=True,
    packages=PACKAGES,
)
