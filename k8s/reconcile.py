"""One run, one round: what its Jobs and the store say, what `flow.decide` makes of it, and doing that.

Between rounds a `Keeper` remembers only what it could read again: complete artifacts, published shards, attempts that
are over. The store is asked about a node when its inputs have just become complete and when one of its Jobs has ended,
not otherwise. Nothing is remembered to have been done: what a round did, the next one finds in the store or the API.

It is called by one thread at a time, with a list of the run's Jobs that is newer than its last round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from flow.decide import Decision, Finalise, Limits, Observed, Start, State, decide
from flow.graph import Graph, build
from flow.pods import PodSettings
from flow.recipe import RecipeBase
from flow.record import run_state
from flow.resolve import Resolver
from flow.runstate import RunState, write_recipe, write_resolved, write_state
from flow.sources import settle_recipe
from k8s.attempts import Attempts
from k8s.client import Client
from k8s.names import Reason
from k8s.observe import JobView, Obstacle, shards_of
from k8s.render import RenderSettings
from k8s.requests import Requests
from k8s.run import Run
from k8s.settle import Fails, Jobs, Settler
from k8s.start import Creates, Starter
from k8s.status import Seen
from stages.contract.clock import now
from stages.contract.finalise import finalise
from stages.contract.manifest import manifest_key, unpublish_damaged
from stages.contract.store import Store
from stages.contract.task import Task

HEARTBEAT_S = 45.0  # an unchanged state is written again after this time: the run is looked after


class Told(Creates, Fails, Protocol):
    """What is told of a round, for the metrics."""

    def handed_over(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Tools:
    """What all runs of a controller share."""

    client: Client
    store: Store
    render: RenderSettings
    pods: Mapping[str, PodSettings]
    told: Told
    build: Callable[[RecipeBase], Graph] = build


@dataclass
class _Node:
    """An open node whose inputs are complete."""

    shards: int
    published: frozenset[int]
    looked: str = ""  # the version of its Job when the store was last asked about it


class Keeper:
    """One run, kept from round to round while its spec stays the same."""

    def __init__(self, run: Run, tools: Tools) -> None:
        """Opens the run in the store.

        Raises:
            StageError: BAD_SETTINGS where it names rows or models that are not there, STORE where the store is away.
        """
        self.run = run
        self._tools = tools
        recipe = settle_recipe(run.recipe, tools.store, f"trun/{run.name}")
        self._graph = tools.build(recipe)
        self._limits = Limits(recipe.run.retries)
        self._attempts = Attempts(tools.store, run.name, f"{run.uid}/{run.generation}")
        write_recipe(tools.store, recipe)
        self._settler = Settler(tools.client, self._attempts, tools.told)
        self._starter = Starter(run, tools.client, self._attempts, tools.render, tools.pods, tools.told)
        self._fresh()
        self._requests = Requests(run, self._graph, tools.store)
        self._written: tuple[RunState, float] | None = None
        self._cached: frozenset[str] | None = None
        self._at_work: frozenset[str] = frozenset()
        self.again = False

    @property
    def at_work(self) -> int:
        """How many requests `peek` makes: the nodes that a Job works on."""
        return len(self._at_work)

    def peek(self) -> bool:
        """Whether an artifact is complete though its Job goes on: what is made from it need not wait for pods to end.

        Raises:
            StageError: STORE.
        """
        resolved = self._resolver.resolved
        made = {name for name in self._at_work if self._tools.store.size(manifest_key(resolved[name].key)) is not None}
        if made and self._recheck is not None:
            self._recheck |= made
        return bool(made)

    def _fresh(self) -> None:
        """Forgets what the store said: something was taken out of it."""
        self._resolver = Resolver(self._graph, self._tools.store)
        self._nodes: dict[str, _Node] = {}
        self._recheck: set[str] | None = None  # everything
        self._resolved = -1

    def round(self, jobs: Sequence[JobView], obstacles: Mapping[str, Obstacle], seconds: float) -> Seen:
        """Looks, decides, acts.

        Args:
            jobs: every Job of this run.
            obstacles: by Job, why its pods do not start.
            seconds: a monotonic time.

        Raises:
            StageError: STORE, or whatever it is that a person has to mend.
            ApiError: the API server does not answer, or forbids.
        """
        self.again = False
        by_node: dict[str, dict[int, JobView]] = {}
        for job in jobs:
            if job.owner == self.run.uid:
                by_node.setdefault(job.node, {})[job.attempt] = job
        self._look(by_node)
        notices = self._carry_out_requests(by_node)
        observed = {name: self._observe(name, by_node.get(name, {})) for name in self._graph.nodes}
        decision = decide(self._graph, observed, self._limits)
        if self._requests.waiting:  # for Jobs to end, also those of a run whose every artifact is complete
            decision = replace(decision, actions=(), ended=False)
        started: set[str] = set()
        trouble: dict[str, Obstacle] = {}
        if decision.ended:
            # The last pods of what is complete still send their logs; they end by themselves.
            left = [jobs for name, jobs in by_node.items() if decision.states.get(name) is not State.DONE]
            self._settler.delete(job for each in left for job in each.values() if job.live)
        else:
            started, trouble = self._act(decision)
        seen = self._seen(decision, observed, by_node, started, trouble, obstacles, notices)
        self._at_work = frozenset(seen.working())
        self._write_state(seen, seconds)
        return seen

    # Looking

    def _look(self, by_node: Mapping[str, Jobs]) -> None:
        ended = {name for name in self._nodes if self._has_news(name, by_node.get(name, {}))}
        only = None if self._recheck is None else ended | self._recheck
        watched = {name for name, jobs in by_node.items() if any(job.finished == "Complete" for job in jobs.values())}
        self._resolver.look(only, watched | (only or set()))
        self._recheck = set()
        if len(self._resolver.complete) != self._resolved:
            write_resolved(self._tools.store, self.run.name, self._resolver.summary())
            self._resolved = len(self._resolver.complete)
        if self._cached is None:
            self._cached = frozenset(self._resolver.complete)

    def _has_news(self, name: str, jobs: Jobs) -> bool:
        """Whether a node's Job has ended, or all of its indices have, since the store was last asked about it."""
        job = jobs.get(self._attempts.of(name).latest)
        node = self._nodes[name]
        if job is None or job.version == node.looked:
            return False
        if not job.finished:
            task = self._attempts.task(name, job.attempt)
            if task is None or shards_of(job, task.shards.indices).succeeded != frozenset(task.shards.indices):
                return False
        node.looked = job.version
        return True

    def _observe(self, name: str, jobs: Jobs) -> Observed:
        if name in self._resolver.complete:
            # Another run may have made it; a Job in a queue would wait for nothing.
            self._settler.delete(job for job in jobs.values() if job.live and job.suspended)
            return Observed(complete=True, resolved=True)
        if name not in self._resolver.resolved:
            return Observed()
        node = self._node(name)
        known = self._attempts.of(name)
        known.latest = max([known.latest, *jobs])  # another controller may have gone on meanwhile
        current, listed = self._settler.settle(name, jobs, self._resolver)
        node.published = node.published if listed is None else listed
        if current is None and self._resolver.damaged(name):
            unpublish_damaged(self._tools.store, self._resolver.resolved[name].key)
            self._resolver.look([name])
            node.published = self._resolver.published(name)
        unstarted = current is None and known.latest > known.settled
        running, published = frozenset[int](), node.published
        if current is not None:
            job, task = current
            shards = shards_of(job, task.shards.indices)
            published |= shards.succeeded
            running = frozenset(task.shards.indices) if job.going else shards.running
        return Observed(
            resolved=True,
            shards=node.shards,
            published=published,
            running=running - published or running,
            suspended=current is not None and current[0].suspended,
            ended=tuple(known.ended),
            attempts=known.latest - 1 if unstarted else known.latest,
        )

    def _node(self, name: str) -> _Node:
        if name not in self._nodes:
            layout = self._resolver.layout(name)
            self._nodes[name] = _Node(layout.shards, self._resolver.published(name))
        return self._nodes[name]

    # Acting

    def _act(self, decision: Decision) -> tuple[set[str], dict[str, Obstacle]]:
        started: set[str] = set()
        trouble: dict[str, Obstacle] = {}
        for action in decision.actions:
            if isinstance(action, Finalise):
                self._finalise(action.node)
                continue
            obstacle = self._starter.start(self._task(action))
            if obstacle is None:
                started.add(action.node)
                self._hand_over(action)
            else:
                trouble[action.node] = obstacle
        return started, trouble

    def _task(self, action: Start) -> Task:
        return self._resolver.task(action.node, action.attempt, action.shards, action.halvings)

    def _finalise(self, name: str) -> None:
        """Completes an artifact whose last shard died just before it could; the next round sees it."""
        finalise(self._tools.store, self._resolver.task(name, 1, (0,)), self._resolver.layout(name))
        assert self._recheck is not None
        self._recheck.add(name)
        self.again = True

    def _hand_over(self, action: Start) -> None:
        """Tells how long after its last input a node's first Job came."""
        needs = self._graph.nodes[action.node].needs
        if action.attempt > 1 or not needs or self._cached is None or self._cached.issuperset(needs):
            return
        last = max(datetime.fromisoformat(self._resolver.complete[each].finished) for each in needs)
        self._tools.told.handed_over((now() - last).total_seconds())

    def _carry_out_requests(self, by_node: Mapping[str, Jobs]) -> list[tuple[Reason, str]]:
        """Does what the spec asks to make again, each request once what it concerns has no Job any more."""
        notices: list[tuple[Reason, str]] = []
        while (request := self._requests.next()) is not None:
            jobs = (job for name in self._requests.concerned(request) for job in by_node.get(name, {}).values())
            at_work = [job for job in jobs if not job.finished]
            if at_work:
                self._settler.delete(job for job in at_work if not job.going)
                break  # once they are gone; their going wakes the controller
            text, forgot = self._requests.carry_out(request, self._resolver)
            notices.append((Reason.RERUN, text))
            if forgot:  # else every manifest would be read again for nothing
                self._fresh()
                self._look({})
        return notices

    # Telling

    def _seen(
        self,
        decision: Decision,
        observed: Mapping[str, Observed],
        by_node: Mapping[str, Jobs],
        started: set[str],
        trouble: Mapping[str, Obstacle],
        obstacles: Mapping[str, Obstacle],
        notices: Sequence[tuple[Reason, str]],
    ) -> Seen:
        jobs = {
            name: job
            for name, each in by_node.items()
            if (job := each.get(self._attempts.of(name).latest)) is not None and job.live
        }
        held = {name: obstacles[job.name] for name, job in jobs.items() if job.name in obstacles}
        return Seen(
            decision,
            shards={name: self._counts(name, each) for name, each in observed.items()},
            attempts={name: self._attempts.of(name).latest for name in self._graph.nodes},
            jobs=jobs,
            started=frozenset(started),
            obstacles={**held, **trouble},
            failed={name: len(each.ended) for name, each in observed.items()},
            requests=self._requests.done,
            notices=tuple(notices),
        )

    def _counts(self, name: str, seen: Observed) -> tuple[int, int]:
        if seen.complete:
            shards = len(self._resolver.complete[name].shards)
            return shards, shards
        return len(seen.published), seen.shards if seen.resolved else 0

    def _write_state(self, seen: Seen, seconds: float) -> None:
        """`state.json`, for `status` without a cluster and for `gc`: when it changed, and now and then."""
        state = run_state(
            seen.decision, seen.shards, seen.failed, cached=self._cached or frozenset(), namespace=self.run.namespace
        )
        if self._written is not None:
            last, at = self._written
            if last.model_copy(update={"updated": state.updated}) == state and seconds - at < HEARTBEAT_S:
                return
        write_state(self._tools.store, self.run.name, state)
        self._written = (state, seconds)
