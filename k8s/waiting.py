"""Why the pods of Jobs do not start, asked so that it costs little however many of them wait.

Ten thousand shards on a cluster with room for a thousand are nine thousand pending pods, and to list those takes longer
than all else that a sweep does. One page of pending pods is read. Jobs that it leaves out, if none of their pods works,
are asked about by name, a few pods each: the pods of a Job mostly wait for the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from k8s import names
from k8s.client import Client, Object
from k8s.names import Reason
from k8s.observe import JobView, Obstacle, obstacle

PAGE = 100
OF_A_JOB = 10
_PENDING = "status.phase=Pending"


def obstacles(client: Client, jobs: Iterable[JobView]) -> dict[str, Obstacle]:
    """By Job, what keeps its pods from starting.

    A Job of which some pods work has what it can get for now: that there is no room for more is no obstacle.

    Raises:
        ApiError: the API server does not answer.
    """
    waiting = {job.name: job for job in jobs if job.live and job.active > job.ready}
    if not waiting:
        return {}
    page, more = client.some("pods", PAGE, labels=names.OURS, fields=_PENDING)
    pods = list(page)
    if more:
        heard_of = {_job(pod) for pod in pods}
        for name, job in waiting.items():
            if name not in heard_of and not job.ready:
                pods += client.some("pods", OF_A_JOB, labels=f"{names.LABEL_JOB_NAME}={name}", fields=_PENDING)[0]
    found: dict[str, Obstacle] = {}
    for pod in pods:
        each, of = obstacle(pod), waiting.get(_job(pod))
        if each is None or of is None or (each.reason is Reason.UNSCHEDULABLE and of.ready):
            continue
        if each.job not in found or found[each.job].reason is Reason.UNSCHEDULABLE:
            found[each.job] = each
    return found


def _job(pod: Object) -> str:
    labels: Mapping[str, str] = pod["metadata"].get("labels", {})
    return labels.get(names.LABEL_JOB_NAME, "")
