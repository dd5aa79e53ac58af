"""Pods that do not start: what is said of them, and that thousands of them are not listed every few seconds."""

from __future__ import annotations

import pytest

from k8s.waiting import OF_A_JOB, PAGE
from stages.contract.store import Store
from tests.k8s.driving import condition, make_controller, recipe, sweep, tools
from tests.k8s.fake import FakeCluster

NO_ROOM = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
    ]
}
NO_IMAGE = {
    "containerStatuses": [{"name": "stage", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]
}


@pytest.fixture
def cluster(file_store: Store) -> FakeCluster:
    return FakeCluster(file_store)


def pod_lists(cluster: FakeCluster) -> int:
    return sum(method == "GET" and path.endswith("/pods") for method, path in cluster.seen)


def reason(cluster: FakeCluster, run: str) -> str:
    return str(condition(cluster.run(run)["status"], "Progressing")["reason"])


def test_a_jobs_thousands_of_pending_pods_hide_no_other_jobs_and_cost_two_requests(
    cluster: FakeCluster, file_store: Store
) -> None:
    for name in ("wide", "other"):
        cluster.add_run(name, recipe())
    controller = make_controller(tools(cluster, file_store))
    sweep(controller)
    wide, other = (
        next(job for job in cluster.jobs("numbers") if job["metadata"]["labels"]["montessori.dev/run"] == name)
        for name in ("wide", "other")
    )
    for _ in range(10 * PAGE):
        cluster.pend_pod(wide, NO_ROOM)
    for _ in range(10 * OF_A_JOB):
        cluster.pend_pod(other, NO_IMAGE)
    cluster.seen.clear()
    sweep(controller)
    assert (reason(cluster, "wide"), reason(cluster, "other")) == ("Unschedulable", "ImageNotPulled")
    assert pod_lists(cluster) == 2


def test_an_image_that_is_not_there_is_told_before_there_being_no_room(cluster: FakeCluster, file_store: Store) -> None:
    cluster.add_run("run", recipe())
    controller = make_controller(tools(cluster, file_store))
    sweep(controller)
    (job,) = cluster.jobs("numbers")
    for status in (NO_ROOM, NO_IMAGE, NO_ROOM):
        cluster.pend_pod(job, status)
    sweep(controller)
    assert reason(cluster, "run") == "ImageNotPulled"


def test_pods_are_not_listed_while_every_job_has_what_it_asks_for(cluster: FakeCluster, file_store: Store) -> None:
    cluster.add_run("run", recipe())
    controller = make_controller(tools(cluster, file_store))
    sweep(controller)
    for job in cluster.jobs():
        cluster.set_job(job, active=1, ready=1)
    cluster.seen.clear()
    sweep(controller)
    assert pod_lists(cluster) == 0
