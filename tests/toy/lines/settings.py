"""Settings of the toy stage; all that a test makes it suffer costs nothing of the fingerprint."""

from __future__ import annotations

from typing import Literal

from stages.contract.spec import StageSettings, StageSpec, resource

Fault = Literal["", "settings", "data", "gate", "bug", "memory", "hog", "accelerator", "full", "exit", "early"]


class LinesSettings(StageSettings):
    times: int = 2
    chunk_rows: int = resource(4)
    pause_s: float = resource(0.0)
    hold_at: int = resource(-1)  # wait before this chunk until runs/RUN/go is in the store
    padding: int = resource(0)
    diary: str = resource("")
    fault: Fault = resource("")
    fault_at: int = resource(0)
    fault_above: int = resource(0)  # the fault happens while micro_batch is above it
    micro_batch: int = resource(4)


SPEC = StageSpec(
    name="tests.toy.lines",
    version=1,
    settings=LinesSettings,
    about="multiplies numbers",
    inputs=("rows",),
    sharded=True,
    packages=("pyarrow",),
)
