"""Faults in a real cluster: whatever happens to pods, Jobs, controllers, the API server, the store or a node, a run
ends with the artifacts of one to which nothing happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.access import RESTRICTED
from tests.cluster.faults import HELD, UnderWay, evict, twin
from tests.cluster.local_controller import LocalController
from tests.cluster.machine import OUTAGE_S, RUN_S, Json, await_, in_node, kubectl, without_docker
from tests.cluster.release import MARK, MODELS, Release, undisturbed


def pod_is_gone(release: Release, pod: Json) -> bool:
    found = release.client.get("pods", pod["metadata"]["name"])
    return found is None or found["metadata"]["uid"] != pod["metadata"]["uid"]


def test_a_pod_that_is_deleted_at_once_mid_shard(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "pod-deleted", times=101)
    kubectl("delete", "pod", "-n", release.namespace, run.pod["metadata"]["name"], "--grace-period=0", "--force")
    run.ends_undisturbed(tmp_path)


def test_a_pod_that_is_killed_mid_shard(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "pod-killed", times=102)
    in_node(run.pod["spec"]["nodeName"], f"pkill -KILL -f '[s]tages .*/runs/{run.name}/tasks/lines'")
    run.ends_undisturbed(tmp_path)


def test_a_pod_that_is_evicted_costs_no_retry(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "pod-evicted", times=103, retries=0)
    evict(release.namespace, run.pod["metadata"]["name"])
    await_(lambda: pod_is_gone(release, run.pod), RUN_S, "the eviction")
    run.ends_undisturbed(tmp_path)
    assert run.attempts() == 1, "the Job itself starts another pod"


def test_a_job_that_is_deleted(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "job-deleted", times=104, retries=0)
    release.client.delete("jobs", run.job)
    run.ends_undisturbed(tmp_path)
    assert run.attempts() in (1, 2), "as its pods had the time to say that they were stopped, or not"


def test_a_job_that_was_removed_before_the_controller_saw_it_end(release: Release, tmp_path: Path) -> None:
    """As its TTL would: the shortest is a day."""
    run = UnderWay(release, "job-unseen", times=105)
    release.scale(release.controller, 0)
    try:
        run.go()
        await_(lambda: _complete(release, run.job), RUN_S, "the end of the Job")
        release.client.delete("jobs", run.job)
        await_(lambda: release.client.get("jobs", run.job) is None, RUN_S, "the Job to be gone")
    finally:
        release.scale(release.controller, 1)
    run.ends_undisturbed(tmp_path)
    assert run.attempts() == 1, "what is published is not made again"


def _complete(release: Release, job: str) -> bool:
    found = release.client.get("jobs", job)
    assert found is not None
    return any(each["type"] == "Complete" for each in found["status"].get("conditions", ()))


def test_a_controller_that_is_killed(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "controller-killed", times=106)
    pods = [each for each in release.client.list("pods") if release.controller in each["metadata"]["name"]]
    for pod in pods:
        kubectl("delete", "pod", "-n", release.namespace, pod["metadata"]["name"], "--grace-period=0", "--force")
    assert pods
    run.ends_undisturbed(tmp_path)


def test_two_controllers_at_once(release: Release, tmp_path: Path) -> None:
    """Under a Lease of its own the second one works as well as the first."""
    second = LocalController(release, tmp_path / "second.log")
    try:
        await_(lambda: '"leads"' in second.log(), RUN_S, "the second controller")
        run = UnderWay(release, "two-controllers", times=107)
        evict(release.namespace, run.pod["metadata"]["name"])
        run.ends_undisturbed(tmp_path)
        assert run.attempts() == 1
        assert {job["metadata"]["labels"]["montessori.dev/attempt"] for job in release.jobs(run.name)} == {"1"}
    finally:
        second.stop()


def test_two_pods_of_one_index(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "two-pods", times=108)
    other = release.client.create("pods", twin(run.pod))["metadata"]["name"]
    held = f"chunk {HELD['hold_at']} of shard"
    await_(lambda: held in kubectl("logs", "-n", release.namespace, other), RUN_S, "the twin at the same chunk")
    run.ends_undisturbed(tmp_path)
    await_(lambda: release.client.get("pods", other)["status"]["phase"] == "Succeeded", RUN_S, "the twin's end")


@pytest.fixture(scope="module")
def failing(release: Release) -> dict[str, Json]:
    """Runs that fail in every way, side by side: by name, the settings of their fault."""
    faults: dict[str, Json] = {
        "ends-64": {"fault": "settings"},
        "ends-65": {"fault": "data", "shards": 2, "fault_at": 5, "count": 44},
        "ends-66": {"fault": "gate"},
        "ends-70": {"fault": "bug"},
        "ends-76": {"fault": "memory", "fault_above": 2, "shards": 2, "fault_at": 5, "count": 44},
        "oom-killed": {"fault": "hog", "fault_above": 2},
    }
    for number, (name, graph) in enumerate(faults.items()):
        release.toy(name, retries=1, times=120 + number, **graph)
    return faults


@pytest.mark.parametrize(
    ("name", "code", "words", "attempts"),
    [
        ("ends-64", 64, "times is not what it should be", 1),
        ("ends-65", 65, "row 3 has no text", 1),
        ("ends-66", 66, "yield 0.1 is below 0.5", 1),
        ("ends-70", 70, "no such column", 2),
    ],
)
def test_an_exit_code_does_to_a_run_what_the_table_says(
    release: Release, failing: dict[str, Json], name: str, code: int, words: str, attempts: int
) -> None:
    status = release.ended(name, "Failed")
    line = next(each for each in status["nodes"] if each["name"] == "lines")
    assert words in line["message"] and line["state"] == "failed"
    assert sum(1 for _ in release.store.list(f"runs/{name}/tasks/lines-")) == attempts
    if code == 65:  # the other shard was finished all the same
        assert line["shards"] == "1/2"


@pytest.mark.parametrize("name", ["ends-76", "oom-killed"])
def test_out_of_memory_is_tried_again_with_half_the_micro_batch(
    release: Release, failing: dict[str, Json], name: str, tmp_path: Path
) -> None:
    release.ended(name)
    tasks = [json.loads(release.store.get(f"runs/{name}/tasks/lines-{attempt}.json")) for attempt in (1, 2)]
    assert [task["settings"]["micro_batch"] for task in tasks] == [4, 2]
    graph = failing[name]
    if graph.get("shards") == 2:  # the second of them has no sixth chunk, and was finished by the first Job
        assert sorted(job["spec"]["completions"] for job in release.jobs(name, "lines")) == [1, 2]
    number = list(failing).index(name)
    assert release.digests(name) == undisturbed(tmp_path, times=120 + number, count=graph.get("count", 48))


@pytest.fixture
def elsewhere(release: Release, tmp_path: Path) -> Iterator[str]:
    """Another namespace, whose controller names an image that does not exist."""
    namespace = f"{release.namespace}-other"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": RESTRICTED}}
    kubectl("create", "-f", "-", given=json.dumps(body))
    missing = (release.image.rpartition("/")[0] or "localhost") + "/there-is-no-such-image:1"
    controller = LocalController(
        release,
        tmp_path / "elsewhere.log",
        namespace=namespace,
        image=missing,
        store=f"{release.store_uri()}/elsewhere",
        service_account="default",
        store_secret="",
    )
    try:
        yield namespace
    finally:
        controller.stop()
        kubectl("delete", "namespace", namespace, "--wait=false")


def test_an_image_that_does_not_exist_is_named_in_a_condition(release: Release, elsewhere: str) -> None:
    run = {
        "apiVersion": "montessori.dev/v1alpha1",
        "kind": "TailoringRun",
        "metadata": {"name": "no-image"},
        "spec": {"recipe": MODELS | {"about": f"{MARK}{{}}"}},
    }
    kubectl("create", "-n", elsewhere, "-f", "-", given=json.dumps(run))

    def told() -> str:
        shown: str = kubectl("get", "trun", "no-image", "-n", elsewhere, "-o", "jsonpath={.status.conditions}")
        return shown if "there-is-no-such-image" in shown else ""

    conditions = await_(told, RUN_S, "a condition that names the image")
    assert "ImagePullBackOff" in conditions or "ErrImagePull" in conditions


def test_a_node_that_is_drained(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "node-drained", times=109, retries=0)
    node = run.pod["spec"]["nodeName"]
    kubectl("cordon", node)
    try:
        for pod in release.pods(run.name, "lines"):
            evict(release.namespace, pod["metadata"]["name"])
        await_(lambda: pod_is_gone(release, run.pod), RUN_S, "the drain")
    finally:
        kubectl("uncordon", node)
    run.ends_undisturbed(tmp_path)
    assert run.attempts() == 1


def test_a_store_that_is_away(release: Release, tmp_path: Path) -> None:
    run = UnderWay(release, "store-away", times=110, retries=0)
    release.scale(release.minio, 0)
    time.sleep(OUTAGE_S)
    release.scale(release.minio, 1)
    release.forward.restart()
    run.ends_undisturbed(tmp_path, within=2 * RUN_S)


def test_an_api_server_that_is_away(release: Release, tmp_path: Path) -> None:
    """Its process stands still, as one does whose machine is out of memory or disk: nobody gets an answer."""
    run = UnderWay(release, "api-away", times=111, retries=0)
    node = _control_plane()
    run.go()  # its shards end meanwhile, unseen
    in_node(node, "pkill -STOP kube-apiserver")
    try:
        time.sleep(OUTAGE_S)
    finally:
        in_node(node, "pkill -CONT kube-apiserver")
    run.ends_undisturbed(tmp_path, within=2 * RUN_S)
    assert run.attempts() == 1


def _control_plane() -> str:
    selector = "node-role.kubernetes.io/control-plane"
    found = kubectl("get", "nodes", "-l", selector, "-o", "jsonpath={.items[*].metadata.name}").split()
    if not found:
        without_docker("the cluster's control plane is not one of its nodes: it cannot be stopped from here")
    return found[0]
