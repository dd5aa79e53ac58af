"""Settings of the toy stage; all that a test makes it suffer costs nothing of the fingerprint."""

from __future__ import annotations

from typing import Literal

from stages.contract.spec import StageSettings, StageSpec, resource

Fault = Literal["", "data", "gate", "bug", "memory", "accelerator", "full", "exit", "early"]


class LinesSettings(StageSettings):
    times: int = 2
    chunk_rows: int = resource(4)
    pause_s: float = resource(0.0)
    padding: int = resource(0)
    diary: str = resource("")
    fault: Fault = resource("")
    fault_at: int = resource(0)


SPEC = StageSpec(
    name="tests.toy.lines",
    version=1,
    settings=LinesSettings,
    about="multiplies numbers",
    inputs=("rows",),
    sharded=True,
    packages=("pyarrow",),
)
