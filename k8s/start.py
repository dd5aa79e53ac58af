"""Starting an attempt: its task into the store, then its Job. Done twice, or half, or by two at once, it is done once.

The task is written first, by a conditional PUT: from then on the attempt is decided. A Job that is missing is created
for the same task by whoever comes next; one that is there already is adopted if its hash agrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flow.pods import PodSettings, pods_for
from k8s.attempts import Attempts
from k8s.client import Client, Conflict, Object, Refused
from k8s.names import ANNOTATION_SPEC_HASH, Reason
from k8s.observe import Obstacle, job_view
from k8s.render import RenderSettings, is_gang, render_job, render_service
from k8s.run import Run
from stages.contract.errors import bad_settings
from stages.contract.task import Task


class Creates(Protocol):
    """What is told of a Job that was created or adopted."""

    def job_created(self, node: str, stage: str) -> None: ...


@dataclass(frozen=True)
class Starter:
    """Starts attempts of one run."""

    run: Run
    client: Client
    attempts: Attempts
    render: RenderSettings
    cluster_pods: Mapping[str, PodSettings]
    told: Creates

    def start(self, task: Task) -> Obstacle | None:
        """Starts an attempt, or says why the API server refuses its Job; asking again later is harmless."""
        task = self.attempts.claim(task)
        try:
            pods = pods_for(task.stage, self.cluster_pods, self.run.recipe.run.pods)
        except ValueError as error:
            raise bad_settings(str(error), where=f"trun/{self.run.name}") from None
        job = render_job(self.run.ref, task, pods, self.render)
        name = str(job["metadata"]["name"])
        try:
            if is_gang(job):
                self._service(render_service(job))
            self.client.create("jobs", job)
        except Conflict:
            return self._adopt(name, job)
        except Refused as error:
            return Obstacle(name, Reason.REFUSED, error.message or error.reason)
        self.told.job_created(task.node, task.stage)
        return None

    def _service(self, service: Object) -> None:
        try:
            self.client.create("services", service)
        except Conflict:
            return  # an earlier try at this very attempt made it: its name has the Job's hash

    def _adopt(self, name: str, wanted: Object) -> Obstacle | None:
        found = self.client.get("jobs", name)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return None  # it is on its way out: the next round creates it
        view = job_view(found)
        mark = wanted["metadata"]["annotations"][ANNOTATION_SPEC_HASH]
        if view is not None and view.spec_hash == mark and view.owner == self.run.uid:
            return None
        return Obstacle(name, Reason.REFUSED, f"there is another Job named {name}, which is not this run's: delete it")
