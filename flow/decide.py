"""What to do next, as a pure function of the graph and of what can be observed; every sequencer calls it.

The store is the truth. A node is done when its artifact is complete, whatever else is said of it; a shard is done when
it is published. Everything else (attempts, running processes or Jobs) only decides whether to start, wait or give up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from flow.graph import Graph
from stages.contract.errors import ExitCode

INTERRUPTION_LIMIT = 50  # a shard interrupted this often is not being preempted, something is wrong
STORE_LIMIT = 10


class State(StrEnum):
    """A node's state, for people and for `decide`."""

    WAITING = "waiting"  # an input is not there yet
    READY = "ready"
    RUNNING = "running"
    SUSPENDED = "suspended"  # started, and held back by a queue
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # something it needs failed
    STOPPED = "stopped"  # the run ended before it


@dataclass(frozen=True)
class Ended:
    """How one attempt at one shard ended."""

    shard: int
    attempt: int
    code: int
    message: str = ""


@dataclass(frozen=True)
class Observed:
    """What is known of one node now.

    Attributes:
        complete: its artifact's manifest is there.
        resolved: all its inputs are complete, so that its fingerprint is known.
        shards: how many shards it has.
        published: shards that are published in the store.
        running: shards that a process or a pod works on.
        suspended: whether what works on them is held back, by a queue without quota.
        ended: attempts of this run that ended without publishing, oldest first.
        attempts: the number of the latest attempt.
    """

    complete: bool = False
    resolved: bool = False
    shards: int = 1
    published: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    suspended: bool = False
    ended: tuple[Ended, ...] = ()
    attempts: int = 0


@dataclass(frozen=True)
class Start:
    """Start these shards of a node as a new attempt; `halvings` is how often the micro-batch is to be halved."""

    node: str
    shards: tuple[int, ...]
    attempt: int
    halvings: int = 0


@dataclass(frozen=True)
class Finalise:
    """All shards are published but the artifact's manifest is not: the last shard died in between."""

    node: str


@dataclass(frozen=True)
class Decision:
    """Actions to take now, every node's state, and whether the run has ended (and how)."""

    actions: tuple[Start | Finalise, ...]
    states: Mapping[str, State]
    failures: tuple[Failure, ...] = ()
    ended: bool = False

    @property
    def exit_code(self) -> int:
        """The run's exit code: that of its first failure, 0 without one."""
        return self.failures[0].code if self.failures else 0


@dataclass(frozen=True)
class Failure:
    """Why a node cannot be completed."""

    node: str
    shard: int
    code: int
    message: str


@dataclass(frozen=True)
class Limits:
    """How many failures of a shard are tried again."""

    retries: int = 3


@dataclass
class _Verdicts:
    states: dict[str, State] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    stop: bool = False


def decide(
    graph: Graph, observed: Mapping[str, Observed], limits: Limits, wanted: Sequence[str] | None = None
) -> Decision:
    """What to start and what to say, given the graph and what is observed.

    Args:
        graph: the run.
        observed: what is known of each node.
        limits: retry limits.
        wanted: the nodes to complete (with all they need); the whole graph if not given.

    Returns:
        Actions in graph order, a state for each node, and `ended` once nothing more can happen.
    """
    needed = _needed(graph, wanted)
    verdicts = _Verdicts()
    for node in graph.nodes.values():
        if node.name in needed:
            _judge(node.name, node.needs, observed[node.name], limits, verdicts)
        else:
            verdicts.states[node.name] = State.DONE if observed[node.name].complete else State.WAITING
    if verdicts.stop:
        for name, state in verdicts.states.items():
            if state in (State.READY, State.WAITING, State.RUNNING, State.SUSPENDED):
                verdicts.states[name] = State.STOPPED
        return Decision((), verdicts.states, tuple(verdicts.failures), ended=True)
    actions: list[Start | Finalise] = []
    for name in graph.nodes:
        if name in needed and verdicts.states[name] in (State.READY, State.RUNNING):
            actions.extend(_actions(name, observed[name], limits))
    over = (State.DONE, State.FAILED, State.BLOCKED)
    ended = all(verdicts.states[name] in over for name in needed)
    return Decision(tuple(actions), verdicts.states, tuple(verdicts.failures), ended=ended)


def _needed(graph: Graph, wanted: Sequence[str] | None) -> set[str]:
    needed = set(graph.nodes if wanted is None else wanted)
    for node in reversed(list(graph.nodes.values())):
        if node.name in needed:
            needed.update(node.needs)
    return needed


def _judge(name: str, needs: Sequence[str], seen: Observed, limits: Limits, verdicts: _Verdicts) -> None:
    if seen.complete:
        verdicts.states[name] = State.DONE
        return
    failures = [failure for failure in _fatal(name, seen, limits)]
    fatal_now = [each for each in failures if each.code in (ExitCode.BAD_SETTINGS, ExitCode.GATE)]
    verdicts.failures.extend(failures)
    if fatal_now:
        verdicts.states[name] = State.FAILED
        verdicts.stop = True
    elif any(verdicts.states[each] in (State.FAILED, State.BLOCKED) for each in needs):
        verdicts.states[name] = State.BLOCKED
    elif not seen.resolved:
        verdicts.states[name] = State.WAITING
    elif seen.running:
        verdicts.states[name] = State.SUSPENDED if seen.suspended else State.RUNNING
    elif failures and not _startable(seen, limits):
        verdicts.states[name] = State.FAILED
    else:
        verdicts.states[name] = State.READY


def _fatal(name: str, seen: Observed, limits: Limits) -> list[Failure]:
    """The shards that shall not be tried again, with the reason."""
    found: list[Failure] = []
    for shard, attempts in _by_shard(seen).items():
        last = attempts[-1]
        reason = _refusal(attempts, limits)
        if reason is not None:
            found.append(Failure(name, shard, last.code, reason))
    return found


def _refusal(attempts: Sequence[Ended], limits: Limits) -> str | None:
    """Why a shard is not tried again, or None if it is."""
    last = attempts[-1]
    if last.code in (ExitCode.BAD_SETTINGS, ExitCode.BAD_DATA, ExitCode.GATE):
        return last.message
    interrupted = sum(each.code == ExitCode.INTERRUPTED for each in attempts)
    away = sum(each.code == ExitCode.STORE for each in attempts)
    counted = len(attempts) - interrupted - away
    if counted > limits.retries or interrupted > INTERRUPTION_LIMIT or away > STORE_LIMIT:
        return f"failed {len(attempts)} times; last: {last.message}"
    return None


def _by_shard(seen: Observed) -> dict[int, list[Ended]]:
    found: dict[int, list[Ended]] = {}
    for each in seen.ended:
        if each.shard not in seen.published and each.shard not in seen.running:
            found.setdefault(each.shard, []).append(each)
    return found


def _startable(seen: Observed, limits: Limits) -> tuple[int, ...]:
    refused = {shard for shard, attempts in _by_shard(seen).items() if _refusal(attempts, limits) is not None}
    busy = seen.published | seen.running | refused
    return tuple(shard for shard in range(seen.shards) if shard not in busy)


def _actions(name: str, seen: Observed, limits: Limits) -> list[Start | Finalise]:
    if len(seen.published) == seen.shards:
        return [] if seen.running else [Finalise(name)]
    if seen.running:
        return []  # failed shards alone run again, once this attempt is over: one attempt at a time
    shards = _startable(seen, limits)
    if not shards:
        return []
    halvings = max(
        (
            sum(each.code == ExitCode.OUT_OF_MEMORY for each in attempts)
            for shard, attempts in _by_shard(seen).items()
            if shard in shards
        ),
        default=0,
    )
    return [Start(name, shards, seen.attempts + 1, halvings)]
