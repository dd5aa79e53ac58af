"""Settings of the toy stage that counts."""

from __future__ import annotations

from stages.contract.spec import StageSettings, StageSpec


class NumbersSettings(StageSettings):
    count: int = 24


SPEC = StageSpec(name="tests.toy.numbers", version=1, settings=NumbersSettings, about="counts")
