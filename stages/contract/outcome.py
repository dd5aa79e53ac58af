"""How an attempt at a shard ended, as its process says and its sequencer reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"


class Outcome(BaseModel):
    """How one attempt at one shard ended, kept at `outcome_key` for `status` and the retry budget."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    shard: int
    attempt: int
    code: int
    message: str = ""
    started: str
    finished: str


def outcome_prefix(run: str, node: str, attempt: int) -> str:
    return f"runs/{run}/outcomes/{node}/{attempt:03d}/"


def outcome_key(run: str, node: str, attempt: int, shard: int) -> str:
    return f"{outcome_prefix(run, node, attempt)}shard-{shard:05d}.json"
