"""How attempts ended: by their outcomes in the store, else by what is left of their Jobs and pods.

An attempt is settled once: its failures are then known for good, and the next one may be decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from flow.resolve import Resolver
from k8s.attempts import Attempts
from k8s.client import Client
from k8s.names import LABEL_JOB_NAME
from k8s.observe import JobView, PodEnd, ended_unheard, pod_end
from stages.contract.errors import ExitCode
from stages.contract.task import Task

Jobs = Mapping[int, JobView]  # a node's Jobs by attempt


class Fails(Protocol):
    """Is told of each attempt at a shard that failed."""

    def shard_failed(self, code: int) -> None: ...


class Settler:
    """Settles the attempts of one run."""

    def __init__(self, client: Client, attempts: Attempts, told: Fails) -> None:
        self._client = client
        self._attempts = attempts
        self._told = told

    def settle(
        self, name: str, jobs: Jobs, resolver: Resolver
    ) -> tuple[tuple[JobView, Task] | None, frozenset[int] | None]:
        """Takes down how a node's attempts ended.

        Returns:
            The Job that works on the node now with its task, and the published shards where they were asked for.
        """
        known, key = self._attempts.of(name), resolver.resolved[name].key
        stale = [job for number, job in jobs.items() if number < known.latest and job.live]
        latest = jobs.get(known.latest)
        if latest is not None and not latest.finished:  # also one from before the spec changed: it goes on
            known.settled = min(known.settled, known.latest - 1)
        current: tuple[JobView, Task] | None = None
        published: frozenset[int] | None = None
        for number in range(known.settled + 1, known.latest + 1):
            job, task = jobs.get(number), self._attempts.task(name, number)
            if task is None or task.output != key:  # of an earlier recipe: it works on something else
                stale += [job] if job is not None and job.live else []
                self._attempts.settle(name, number, ())
            elif job is not None and not job.finished and number == known.latest:
                current = (job, task)
            elif job is None and number == known.latest and not self._attempts.heard_of(name, number):
                break  # decided, and its Job is not there: it is created now
            else:
                published = resolver.published(name)
                self._settle_one(name, published, task, job)
        self.delete(stale)
        return current, published

    def delete(self, jobs: Iterable[JobView]) -> None:
        for job in jobs:
            self._client.delete("jobs", job.name)

    def _settle_one(self, name: str, published: frozenset[int], task: Task, job: JobView | None) -> None:
        pods: list[PodEnd] | None = None
        ended = []
        heard = self._attempts.heard_of(name, task.attempt)
        gang = job is not None and job.completions != len(task.shards.indices)
        for index, shard in enumerate(task.shards.indices):
            if shard in published:
                continue
            end = self._attempts.end(name, task.attempt, shard) if shard in heard else None
            # Pod 0 of a training cannot know that another one was killed for its memory: it only lost it.
            if end is None or (gang and end.code == ExitCode.INTERRUPTED):
                pods = self._pod_ends(job) if pods is None else pods
                of_shard = [each for each in pods if gang or each.index == index]
                end = ended_unheard(shard, task.attempt, job, of_shard, end)
                if end is None:
                    continue
                if of_shard:  # what pods tell goes with them; that nothing is left can be seen again
                    self._attempts.record(name, end)
            if end.code:
                ended.append(end)
                self._told.shard_failed(end.code)
        self._attempts.settle(name, task.attempt, ended)

    def _pod_ends(self, job: JobView | None) -> list[PodEnd]:
        if job is None:
            return []
        pods = self._client.list("pods", labels=f"{LABEL_JOB_NAME}={job.name}", fields="status.phase=Failed")
        return [end for pod in pods if (end := pod_end(pod)) is not None]
