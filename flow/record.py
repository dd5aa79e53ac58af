"""What every sequencer leaves of a run while it goes on, and how it learns how an attempt ended.

An attempt's end is one object in the store, written by the stage itself or, where that died without a word, by the
sequencer: so the retry budget outlives both.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flow.decide import Decision, Ended
from flow.runstate import RunState
from stages.contract.clock import stamp
from stages.contract.errors import ExitCode
from stages.contract.outcome import Outcome, outcome_key
from stages.contract.store import Store

_SILENT = "ended without a word; see montessori logs"


def read_end(store: Store, run: str, node: str, attempt: int, shard: int) -> Ended | None:
    """How an attempt at a shard ended, as its outcome says; None where there is none that can be read."""
    data = store.get_or_none(outcome_key(run, node, attempt, shard))
    if data is None:
        return None
    try:
        outcome = Outcome.model_validate_json(data)
    except ValidationError:
        return None
    return Ended(shard, attempt, outcome.code, outcome.message)


def write_end(store: Store, run: str, node: str, ended: Ended) -> None:
    """Records how an attempt ended, in a sequencer's words."""
    now = stamp()
    outcome = Outcome(
        shard=ended.shard, attempt=ended.attempt, code=ended.code, message=ended.message, started=now, finished=now
    )
    store.put(outcome_key(run, node, ended.attempt, ended.shard), outcome.model_dump_json().encode())


def silent_end(shard: int, attempt: int, code: int, *, signalled: int = 0, out_of_memory: bool = False) -> Ended:
    """The end of a process that left no outcome.

    Args:
        shard: the logical shard.
        attempt: the attempt's number.
        code: its exit status.
        signalled: the signal that ended it, if one did.
        out_of_memory: whether the kernel is known to have killed it for its memory.
    """
    if out_of_memory:
        text = "killed by the kernel: out of memory (raise its memory, or lower the micro-batch)"
        return Ended(shard, attempt, int(ExitCode.OUT_OF_MEMORY), text)
    if signalled == signal.SIGTERM:
        return Ended(shard, attempt, int(ExitCode.INTERRUPTED), "interrupted before it had begun")
    if signalled:
        name = signal.Signals(signalled).name if signalled in set(signal.Signals) else f"signal {signalled}"
        text = f"killed by {name}" + (": out of memory?" if signalled == signal.SIGKILL else "")
        return Ended(shard, attempt, int(ExitCode.BUG), text)
    return Ended(shard, attempt, code if code else int(ExitCode.BUG), _SILENT)


def run_state(
    decision: Decision,
    shards: Mapping[str, tuple[int, int]],
    failed: Mapping[str, int],
    *,
    stopped: bool = False,
    cached: frozenset[str] = frozenset(),
    seconds: Mapping[str, float] | None = None,
    namespace: str = "",
) -> RunState:
    """A run's state as `status` and `gc` read it from the store.

    Args:
        decision: the latest decision.
        shards: published and all shards of each node.
        failed: how many attempts at shards failed, by node.
        stopped: whether it was asked to stop.
        cached: nodes that were complete before this run began.
        seconds: how long each node that this run worked on took so far.
        namespace: the namespace whose controller runs it; empty for a local run.
    """
    messages = {failure.node: failure.message for failure in decision.failures}
    took = seconds or {}
    nodes: dict[str, dict[str, Any]] = {
        name: {
            "state": str(state),
            "cached": name in cached,
            "published": shards[name][0],
            "shards": shards[name][1],
            "failed_attempts": failed.get(name, 0),
            "message": messages.get(name, ""),
            "seconds": round(took[name], 1) if name in took else None,
        }
        for name, state in decision.states.items()
    }
    if stopped:
        phase = "interrupted"
    elif decision.ended:
        phase = "failed" if decision.failures else "done"
    else:
        phase = "running"
    return RunState(phase=phase, exit_code=decision.exit_code, nodes=nodes, pid=os.getpid(), namespace=namespace)
