"""One run's turn: from its object to its written status. Whatever is wrong with it stays with it.

A run whose spec changed gets a new `Keeper`; one that is over costs nothing until then. The status is written where it
differs, Events after that. Every fault becomes a condition, and the next turn tries again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from k8s import names, status
from k8s.client import ApiError, Object, Refused, Unreachable
from k8s.metrics import Metrics
from k8s.names import Condition, Reason
from k8s.observe import JobView, Obstacle
from k8s.reconcile import Keeper, Tools
from k8s.run import Run, parse_run
from k8s.status import Status
from stages.contract.clock import now
from stages.contract.errors import ExitCode, StageError

_LONGEST_NOTE = 1000  # an Event's message may have 1 KiB


class OneRun:
    """One TailoringRun from turn to turn; one thread at a time."""

    def __init__(self, tools: Tools, metrics: Metrics) -> None:
        self._tools = tools
        self._metrics = metrics
        self._keeper: Keeper | None = None
        self._spec: tuple[str, int] | None = None
        self._run: Run | str | None = None  # of that spec

    @property
    def at_work(self) -> int:
        """How many of its nodes a Job works on."""
        return self._keeper.at_work if self._keeper else 0

    def peek(self) -> bool:
        """Whether one of those is complete; see `Keeper.peek`."""
        return bool(self._keeper and self._keeper.peek())

    def turn(
        self, found: Object, jobs: Sequence[JobView], obstacles: Mapping[str, Obstacle], seconds: float
    ) -> tuple[Status, bool]:
        """Looks at the run once.

        Args:
            found: the object, as the API server gives it.
            jobs: its Jobs.
            obstacles: by Job, why its pods do not start.
            seconds: a monotonic time.

        Returns:
            Its status now, and whether there is more to do at once.
        """
        previous: Status = found.get("status") or {}
        generation = int(found["metadata"].get("generation", 1))
        if "deletionTimestamp" in found["metadata"] or status.over(previous, generation):
            self._keeper = None
            return previous, False
        log = structlog.get_logger().bind(run=found["metadata"]["name"])
        seen = None
        try:
            if found["spec"].get("cancel"):  # also one whose recipe is refused
                current = self._cancel(found, previous, jobs)
            elif isinstance(run := self._parsed(found), str):
                self._end_jobs(found, jobs)  # of a recipe that was valid before: nobody would look after them
                current = status.invalid(previous, generation, self._tools.store.uri, run, now())
            else:
                seen = self._kept(run).round(jobs, obstacles, seconds)
                current = status.of_round(previous, generation, self._tools.store.uri, seen, now())
        except (StageError, ApiError) as error:
            log.warning("the round could not be ended", error=str(error))
            current = self._in_trouble(error, previous, generation)
        except Exception as error:  # a bug in one run's round shall not end the others'
            log.exception("a bug in the controller")
            self._metrics.errors.labels("bug").inc()
            self._keeper = None
            text = f"a bug in the controller: {type(error).__name__}: {error}"
            current = self._trouble(previous, generation, Condition.PROGRESSING, Reason.BUG, text)
        self._write(found, previous, current, seen)
        return current, bool(self._keeper and self._keeper.again)

    def _parsed(self, found: Object) -> Run | str:
        """The run, or why its recipe is refused: for good, until it is changed."""
        metadata = found["metadata"]
        spec = (str(metadata["uid"]), int(metadata.get("generation", 1)))
        if self._spec != spec or self._run is None:
            self._keeper = None
            try:
                self._run = parse_run(found, self._tools.store.uri)
            except StageError as error:
                self._run = str(error)
            self._spec = spec
        return self._run

    def _kept(self, run: Run) -> Keeper:
        if self._keeper is None:
            self._keeper = Keeper(run, self._tools)
        return self._keeper

    def _cancel(self, found: Object, previous: Status, jobs: Sequence[JobView]) -> Status:
        self._keeper = None
        left = self._end_jobs(found, jobs)
        generation = int(found["metadata"].get("generation", 1))
        return status.cancelled(previous, generation, self._tools.store.uri, left, now())

    def _end_jobs(self, found: Object, jobs: Sequence[JobView]) -> int:
        """Deletes the run's Jobs that have not ended; returns how many there were."""
        left = [job for job in jobs if job.owner == found["metadata"]["uid"] and not job.finished]
        for job in left:
            if not job.going:
                self._tools.client.delete("jobs", job.name)
        return len(left)

    def _in_trouble(self, error: StageError | ApiError, previous: Status, generation: int) -> Status:
        store = self._tools.store.uri
        if isinstance(error, ApiError):
            self._metrics.errors.labels("api").inc()
            return self._trouble(previous, generation, Condition.PROGRESSING, Reason.API, str(error))
        of_store = error.code in (ExitCode.STORE, ExitCode.BAD_DATA) or (error.where or "").startswith(store)
        self._metrics.errors.labels("store" if of_store else "settings").inc()
        if of_store:
            return self._trouble(previous, generation, Condition.STORE, Reason.NO_ANSWER, str(error))
        return status.invalid(previous, generation, store, str(error), now(), final=False)

    def _trouble(self, previous: Status, generation: int, kind: Condition, reason: Reason, message: str) -> Status:
        return status.troubled(previous, generation, self._tools.store.uri, kind, reason, message, now())

    def _write(self, found: Object, previous: Status, current: Status, seen: status.Seen | None) -> None:
        """Writes the status if it differs, then tells of it. What is not written is seen anew by the next turn."""
        if current == previous:
            return
        name = found["metadata"]["name"]
        try:
            self._tools.client.patch(names.PLURAL, name, {"status": current}, "status")
            for each in status.events(previous, current, seen):
                self._tools.client.create("events", _event(found, each, now()))
        except (Refused, Unreachable) as error:
            structlog.get_logger().warning("the status could not be written", run=name, error=str(error))
        except ApiError:
            return  # the run was deleted, or its namespace ends: nobody is left to be told


def _event(run: Object, event: status.Event, at: datetime) -> dict[str, Any]:
    metadata = run["metadata"]
    time = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "reason": str(event.reason),
        "message": event.message[:_LONGEST_NOTE],
        "type": "Warning" if event.warning else "Normal",
        "source": {"component": "montessori-controller"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
