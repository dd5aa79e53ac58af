"""Settings of the toy stage that publishes ready-made tables."""

from __future__ import annotations

from typing import Literal

from stages.contract.spec import StageSettings, StageSpec


class ReadySettings(StageSettings):
    what: Literal["candidates", "tasks", "rationales", "preference"]


SPEC = StageSpec(name="tests.toy.ready", version=1, settings=ReadySettings, about="publishes ready-made tables")
