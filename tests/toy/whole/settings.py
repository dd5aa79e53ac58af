"""Settings of the unsharded toy stage."""

from __future__ import annotations

from stages.contract.spec import StageSettings, StageSpec, resource


class WholeSettings(StageSettings):
    word: str = "hello"
    wait_s: float = resource(0.0)


SPEC = StageSpec(name="tests.toy.whole", version=1, settings=WholeSettings, about="writes one word")
