"""Running a graph as processes on this machine. The loop is thin: `decide` says what to do, the store what is true.

Killing this process loses nothing: running stages are asked to stop, and the next `montessori run` carries on from what
the store holds. Two runners on one store do work twice at worst.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flow.decide import Decision, Ended, Finalise, Limits, Observed, Start, State, decide
from flow.graph import Graph
from flow.record import read_end, run_state, silent_end
from flow.resolve import Resolver
from flow.runstate import RunState, cancel_key, next_attempt, write_resolved, write_state
from stages.contract.catalog import spec
from stages.contract.devices import gpu_names
from stages.contract.finalise import finalise
from stages.contract.logs import QUIET_VARIABLE
from stages.contract.manifest import unpublish_damaged
from stages.contract.outcome import INDEX_VARIABLE
from stages.contract.progress import ProgressRecord, progress_key
from stages.contract.store import Store
from stages.contract.task import write_task

POLL_S = 0.2
LOOK_S = 2.0
GRACE_S = 60.0
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


@dataclass
class _Shard:
    """One shard that was started: queued while `process` is None."""

    node: str
    shard: int
    attempt: int
    uri: str
    index: int
    slot: int = 0  # of `jobs`: decides which GPUs it sees
    process: subprocess.Popen[bytes] | None = None


@dataclass
class NodeTimes:
    """When a node of this run started and ended, in seconds of the monotonic clock."""

    started: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float | None:
        if self.started is None:
            return None
        return (self.ended if self.ended is not None else time.monotonic()) - self.started


@dataclass(frozen=True)
class Snapshot:
    """What a screen shows: every node's state, its running shards' progress, and times."""

    decision: Decision
    cached: frozenset[str]
    progress: Mapping[str, list[ProgressRecord]]
    times: Mapping[str, NodeTimes]
    shards: Mapping[str, tuple[int, int]]  # published, all


@dataclass
class LocalRun:
    """Runs a graph to its end with at most `jobs` shards at once.

    Attributes:
        wanted: complete only these nodes and what they need.
        on_change: called with a snapshot after each round that looked.
    """

    graph: Graph
    store: Store
    limits: Limits
    jobs: int = 1
    wanted: tuple[str, ...] | None = None
    on_change: Callable[[Snapshot], None] = lambda snapshot: None
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.resolver = Resolver(self.graph, self.store)
        self._shards: list[_Shard] = []
        self._ended: dict[str, list[Ended]] = {}
        self._published: dict[str, frozenset[int]] = {}
        self.times = {name: NodeTimes() for name in self.graph.nodes}
        self._stop = 0
        self._devices = gpu_names() if self.jobs > 1 else []
        self._cached: frozenset[str] = frozenset()

    def run(self) -> Decision:
        """Works until the run has ended or is interrupted; returns the last decision.

        Raises:
            StageError: STORE or BAD_SETTINGS when the store itself cannot be used.
        """
        self.store.delete([cancel_key(self.graph.run)])
        previous = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._look()
            self._cached = frozenset(self.resolver.complete)
            return self._loop()
        finally:
            self._end_all()
            for number, handler in previous.items():
                signal.signal(number, handler)

    @property
    def interrupted(self) -> bool:
        return self._stop > 0

    @property
    def cached(self) -> frozenset[str]:
        """The nodes that were complete before this run began."""
        return self._cached

    def _loop(self) -> Decision:
        looked = -LOOK_S
        while True:
            changed = self._collect()
            due = time.monotonic() - looked >= LOOK_S
            if changed or due or self._stop:
                if self.store.size(cancel_key(self.graph.run)) is not None:
                    self._stop += 1
                self._look()
                looked = time.monotonic()
                decision = self._step()
                if decision.ended or self._stop:
                    return decision
            time.sleep(POLL_S)

    def _look(self) -> None:
        before = len(self.resolver.complete)
        self.resolver.look()
        if len(self.resolver.complete) > before:
            write_resolved(self.store, self.graph.run, self.resolver.summary())

    def _step(self) -> Decision:
        observed = {name: self._observe(name) for name in self.graph.nodes}
        decision = decide(self.graph, observed, self.limits, self.wanted)
        if not self._stop:
            for action in decision.actions:
                if isinstance(action, Finalise):
                    self._finalise(action.node)
                else:
                    self._enqueue(action)
            self._fill()
        self._tell(decision, observed)
        return decision

    def _observe(self, name: str) -> Observed:
        if name in self.resolver.complete:
            self.times[name].ended = self.times[name].ended or time.monotonic()
            return Observed(complete=True, resolved=True)
        if name not in self.resolver.resolved:
            return Observed()
        running = frozenset(each.shard for each in self._shards if each.node == name)
        if not running and self.resolver.damaged(name):
            unpublish_damaged(self.store, self.resolver.resolved[name].key)
        ended = tuple(self._ended.get(name, ()))
        return Observed(
            resolved=True,
            shards=self.resolver.layout(name).shards,
            published=self.resolver.published(name),
            running=running,
            ended=ended,
            attempts=next_attempt(self.store, self.graph.run, name) - 1 if not running else 0,
        )

    def _enqueue(self, action: Start) -> None:
        task = self.resolver.task(action.node, action.attempt, action.shards, action.halvings)
        uri = write_task(self.store, task)
        for index, shard in enumerate(action.shards):
            self._shards.append(_Shard(action.node, shard, action.attempt, uri, index))

    def _finalise(self, name: str) -> None:
        task = self.resolver.task(name, 1, (0,))
        finalise(self.store, task, self.resolver.layout(name))

    def _fill(self) -> None:
        running = sum(each.process is not None for each in self._shards)
        order = list(self.graph.nodes)
        for each in sorted(self._shards, key=lambda shard: order.index(shard.node)):
            if running >= self.jobs:
                return
            if each.process is None:
                taken = {other.slot for other in self._shards if other.process is not None}
                each.slot = min(set(range(self.jobs)) - taken)
                each.process = self._spawn(each)
                running += 1
                times = self.times[each.node]
                times.started = times.started or time.monotonic()

    def _spawn(self, shard: _Shard) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.environment, INDEX_VARIABLE: str(shard.index), QUIET_VARIABLE: "1"}
        if self.jobs > 1:
            # Threads of GNU OpenMP that wait would spin away the other shard's time (Dockerfile has the measurement).
            environment.setdefault("GOMP_SPINCOUNT", "1000")
        if self._devices and spec(self.graph.nodes[shard.node].stage).launch != "torchrun":
            # A share of its own each; a training has all of them.
            share = self._devices[shard.slot :: self.jobs] or [self._devices[shard.slot % len(self._devices)]]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(share)
        return subprocess.Popen(
            [sys.executable, "-m", "stages", shard.uri],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then asks the stages to stop
            preexec_fn=_die_with_parent,
        )

    def _collect(self) -> bool:
        ended = [each for each in self._shards if each.process is not None and each.process.poll() is not None]
        for each in ended:
            self._shards.remove(each)
            assert each.process is not None
            code = each.process.returncode
            if code != 0:
                self._ended.setdefault(each.node, []).append(self._outcome(each, code))
        return bool(ended)

    def _outcome(self, shard: _Shard, code: int) -> Ended:
        found = read_end(self.store, self.graph.run, shard.node, shard.attempt, shard.shard)
        return found or silent_end(shard.shard, shard.attempt, max(code, 0), signalled=max(-code, 0))

    def _tell(self, decision: Decision, observed: Mapping[str, Observed]) -> None:
        progress: dict[str, list[ProgressRecord]] = {}
        for each in self._shards:
            if each.process is None:
                continue
            data = self.store.get_or_none(progress_key(self.graph.run, each.node, each.shard))
            record = ProgressRecord.model_validate_json(data) if data else None
            if record is not None and record.attempt == each.attempt:
                progress.setdefault(each.node, []).append(record)
        shards = {name: (len(seen.published), seen.shards) for name, seen in observed.items()}
        snapshot = Snapshot(decision, self._cached, progress, self.times, shards)
        write_state(self.store, self.graph.run, self._state(decision, shards))
        self.on_change(snapshot)

    def _state(self, decision: Decision, shards: Mapping[str, tuple[int, int]]) -> RunState:
        took = {name: times.seconds for name, times in self.times.items() if name not in self._cached}
        return run_state(
            decision,
            shards,
            {name: len(ended) for name, ended in self._ended.items()},
            stopped=self._stop > 0,
            cached=self._cached,
            seconds={name: seconds for name, seconds in took.items() if seconds is not None},
        )

    def _interrupt(self, *_: object) -> None:
        self._stop += 1
        if self._stop > 1:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for each in self._shards:
            if each.process is not None and each.process.poll() is None:
                try:
                    os.killpg(each.process.pid, number)
                except ProcessLookupError:
                    continue  # it ended between the two calls

    def _end_all(self) -> None:
        """Asks every running stage to stop, and ends those that do not within the grace period."""
        running = [each for each in self._shards if each.process is not None]
        self._signal(signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        while any(each.process is not None and each.process.poll() is None for each in running):
            if time.monotonic() > end:
                self._signal(signal.SIGKILL)
            time.sleep(POLL_S)
        if running:
            self._look()
            observed = {name: self._observe(name) for name in self.graph.nodes}
            self._shards.clear()
            self._tell(decide(self.graph, observed, self.limits, self.wanted), observed)


def _die_with_parent() -> None:
    """Linux: a stage whose runner is killed gets SIGTERM, so that no orphan keeps the machine busy."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


__all__ = ["LocalRun", "NodeTimes", "Snapshot", "State"]
