"""The loop: everything is listed every few seconds, and one run at once when a watch or the store says that it goes on.

Runs are looked at side by side by a few threads; a run whose store or whose many shards take long keeps its own thread
busy and no other. A watch only wakes: one that is silent, ends or misses something costs seconds, never a result. The
store is asked every second whether what a Job makes is complete: its pods take some seconds to end after that.

A sweep's list may be older than a run's own last turn; that run then lists its Jobs once more by itself.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from k8s import names
from k8s.client import ApiError, Client, NoAnswer, Object
from k8s.metrics import Metrics
from k8s.observe import JobView, Obstacle, job_view
from k8s.one import OneRun
from k8s.reconcile import Tools
from k8s.status import Status
from k8s.waiting import obstacles
from stages.contract.errors import StageError

STUCK_S = 300.0  # a loop that has not come round for this long is not alive
PEEK_S = 1.0  # between two looks at the store for what Jobs at work have made
MOST_PEEKS = 16  # requests a second that this may cost: many runs are looked at less often
_SETTLE_S = 0.1  # what happens at once is looked at once
_LONGEST_WATCH_PAUSE_S = 30.0


@dataclass
class _Slot:
    """A run that is known, and whether a thread is busy with it."""

    one: OneRun
    busy: bool = False
    peeking: bool = False  # busy, but not with a turn
    missed: bool = False  # a look at the store was due while a turn went on: it comes right after that
    woken: bool = False
    turned: float = float("-inf")  # when its last turn ended
    status: Status = field(default_factory=dict)
    obstacles: Mapping[str, Obstacle] = field(default_factory=dict)


class Controller:
    """Sequences every TailoringRun of one namespace.

    Args:
        tools: what its runs share.
        metrics: where it counts.
        interval_s: between two sweeps.
        workers: runs that are looked at side by side.
        leads: whether this controller is the one that acts.
    """

    def __init__(
        self, tools: Tools, metrics: Metrics, *, interval_s: float, workers: int, leads: Any = lambda: True
    ) -> None:
        self._tools = tools
        self._client: Client = tools.client
        self._metrics = metrics
        self._interval_s = interval_s
        self._leads = leads
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="run")
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._woken: set[str] = set()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._sweep_due = 0.0
        self._peek_due = 0.0
        self._beat = time.monotonic()
        self._listed = False
        self._log = structlog.get_logger()

    @property
    def alive(self) -> bool:
        return time.monotonic() - self._beat < STUCK_S

    @property
    def ready(self) -> bool:
        """Whether the API server has answered; one that waits for the Lease is ready to take over."""
        return self._listed or not self._leads()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Works until `stop`; every fault is logged and tried again."""
        for resource, labels in ((names.PLURAL, ""), ("jobs", names.OURS)):
            threading.Thread(target=self._watch, args=(resource, labels), name=f"watch {resource}", daemon=True).start()
        while not self._stop.is_set():
            self._beat = time.monotonic()
            self._metrics.leading.set(float(self._leads()))
            if self._leads():
                self.step()
            due = min(self._sweep_due, self._peek_due)
            pause = max(0.0, due - time.monotonic()) if self._leads() else 1.0
            if self._wake.wait(min(pause, self._interval_s)):
                self._stop.wait(_SETTLE_S)
                self._wake.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self) -> None:
        """A sweep if one is due, else a turn for each run that was woken, and a look at the store for the others."""
        with self._lock:
            woken, self._woken = self._woken, set()
        if time.monotonic() >= self._sweep_due:
            try:
                self.sweep()
                self._listed = True
            except ApiError as error:
                self._log.warning("the cluster cannot be listed", error=str(error))
                self._metrics.errors.labels("api").inc()
            self._sweep_due = time.monotonic() + self._interval_s * random.uniform(0.9, 1.1)
            return
        for name in woken:
            self._submit(name, None, time.monotonic())
        if time.monotonic() >= self._peek_due:
            self.peek()

    def peek(self) -> None:
        """Has each run whose Jobs are at work ask the store whether they have made it; one that finds it is woken."""
        with self._lock:
            working = {name: slot for name, slot in self._slots.items() if not slot.busy and slot.one.at_work}
            for slot in self._slots.values():
                slot.missed = slot.busy and not slot.peeking
            for slot in working.values():
                slot.busy = slot.peeking = True
        requests = sum(slot.one.at_work for slot in working.values())
        self._peek_due = time.monotonic() + max(PEEK_S, requests / MOST_PEEKS)
        for name, slot in working.items():
            self._occupy(slot, self._peek_one, name, slot)

    def sweep(self) -> None:
        """Lists every run, every Job and the pods that do not start, and gives each run a turn."""
        began = time.monotonic()
        jobs: dict[str, JobView] = {}
        for each in self._client.list("jobs", labels=names.OURS):
            view = job_view(each)
            if view is not None:
                jobs[view.name] = view
        found = {str(each["metadata"]["name"]): each for each in self._client.list(names.PLURAL)}
        held = obstacles(self._client, jobs.values())
        with self._lock:
            for gone in self._slots.keys() - found.keys():
                del self._slots[gone]
        of_runs: dict[str, list[JobView]] = {}
        for view in jobs.values():
            of_runs.setdefault(view.run, []).append(view)
        for name, each in found.items():
            of_run = of_runs.get(name, [])
            in_the_way = {job.name: held[job.name] for job in of_run if job.name in held}
            self._submit(name, (each, of_run, in_the_way), began)
        self._metrics.count_runs([each.get("status") or {} for each in found.values()])
        self._metrics.sweeps.observe(time.monotonic() - began)

    def settle(self, limit_s: float = 60.0) -> None:
        """Waits until no thread is busy with a run."""
        end = time.monotonic() + limit_s
        while any(slot.busy for slot in list(self._slots.values())):
            assert time.monotonic() < end, "a run is busy for too long"
            time.sleep(0.005)

    def wake(self, run: str) -> None:
        with self._lock:
            self._woken.add(run)
        self._wake.set()

    def wake_all(self) -> None:
        self._sweep_due = 0.0
        self._wake.set()

    def _submit(
        self, name: str, listed: tuple[Object, Sequence[JobView], Mapping[str, Obstacle]] | None, at: float
    ) -> None:
        with self._lock:
            slot = self._slots.setdefault(name, _Slot(OneRun(self._tools, self._metrics)))
            if slot.busy:
                slot.woken = slot.woken or slot.peeking or listed is None
                return
            slot.busy = True
        self._occupy(slot, self._turn, name, slot, listed, at)

    def _occupy(self, slot: _Slot, work: Callable[..., None], *arguments: object) -> None:
        try:
            self._pool.submit(work, *arguments)
        except RuntimeError:  # the pool ends: so does this controller
            slot.busy = slot.peeking = False

    def _free(self, name: str, slot: _Slot, again: bool) -> None:
        with self._lock:
            missed, slot.missed = slot.missed, False
            slot.busy = slot.peeking = missed
            slot.woken = slot.woken or again
            again = slot.woken and not missed
            slot.woken = slot.woken and missed
        if missed:
            self._occupy(slot, self._peek_one, name, slot)
        elif again:
            self.wake(name)

    def _peek_one(self, name: str, slot: _Slot) -> None:
        found = False
        try:
            found = slot.one.peek()
        except StageError as error:  # the next turn writes it into the status
            self._log.debug("the store was not asked", run=name, error=str(error))
        except Exception:
            self._log.exception("a bug in the controller", run=name)
            self._metrics.errors.labels("bug").inc()
        finally:
            self._free(name, slot, found)

    def _turn(
        self,
        name: str,
        slot: _Slot,
        listed: tuple[Object, Sequence[JobView], Mapping[str, Obstacle]] | None,
        at: float,
    ) -> None:
        again = False
        try:
            if not self._leads():
                return
            if listed is None or at < slot.turned:
                found = self._client.get(names.PLURAL, name)
                if found is None:
                    return
                raw = self._client.list("jobs", labels=f"{names.OURS},{names.LABEL_RUN}={name}")
                views = {view.name: view for each in raw if (view := job_view(each)) is not None}
                listed = (found, list(views.values()), slot.obstacles)
            slot.obstacles = listed[2]
            with self._metrics.rounds.time():
                slot.status, again = slot.one.turn(*listed, time.monotonic())
        except ApiError as error:
            self._log.warning("a run could not be looked at", run=name, error=str(error))
            self._metrics.errors.labels("api").inc()
        except Exception:  # the pool would keep it to itself
            self._log.exception("a bug in the controller", run=name)
            self._metrics.errors.labels("bug").inc()
        finally:
            slot.turned = time.monotonic()
            self._free(name, slot, again)

    def _watch(self, resource: str, labels: str) -> None:
        """Wakes the loop while it goes on; however it ends, everything is listed once more."""
        pause = 1.0
        while not self._stop.is_set():
            seen: dict[str, tuple[object, ...]] = {}
            began = time.monotonic()
            try:
                for kind, found in self._client.watch(resource, labels=labels):
                    if self._stop.is_set():
                        return
                    self._heard(resource, kind, found, seen)
            except (ApiError, NoAnswer) as error:
                self._log.debug("a watch ended", resource=resource, error=str(error))
            except Exception:  # half a line, an answer that is no JSON: as good as none
                self._log.exception("a watch broke", resource=resource)
            pause = 1.0 if time.monotonic() - began > _LONGEST_WATCH_PAUSE_S else min(2 * pause, _LONGEST_WATCH_PAUSE_S)
            self._metrics.watches.labels(resource).inc()
            self._sweep_due = min(self._sweep_due, time.monotonic() + 1.0)
            self._wake.set()
            self._stop.wait(pause * random.uniform(0.5, 1.0))

    def _heard(self, resource: str, kind: str, found: Object, seen: dict[str, tuple[object, ...]]) -> None:
        """Wakes a run where it matters: its own spec, or a Job that ends, goes or is let out of its queue."""
        metadata = found.get("metadata", {})
        uid = str(metadata.get("uid"))
        if resource == names.PLURAL:
            run = str(metadata.get("name"))
            mark: tuple[object, ...] = (metadata.get("generation"), metadata.get("deletionTimestamp"))
        else:
            job = job_view(found)
            if job is None:
                return
            run, mark = job.run, (job.finished, job.going, job.suspended, _all_in(job))
        if kind == "DELETED":
            seen.pop(uid, None)
            self.wake(run)
        elif seen.get(uid) != mark:
            new, seen[uid] = uid not in seen, mark
            # A Job that is seen first while it works is one that the run itself has just created, or knows by a sweep.
            if not new or resource == names.PLURAL or any(mark):
                self.wake(run)


def _all_in(job: JobView) -> bool:
    """Whether every index has ended well: what it made is there, though the Job itself has not ended yet."""
    first, _, last = job.succeeded.partition("-")
    if "," in job.succeeded or first not in ("0",):
        return False
    return int(last or first) + 1 >= job.completions
