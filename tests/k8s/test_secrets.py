"""The store's keys are in the environment of who uses them, and in nothing that a run leaves or the cluster holds."""

from __future__ import annotations

import json

import pytest

from flow.pods import PodSettings
from k8s.render import is_gang, render_job, render_service
from stages.contract.task import Task
from tests.contract.conftest import use_server
from tests.contract.servers import ACCESS_KEY, SECRET_KEY, Server
from tests.flow.test_local import run, toy_graph
from tests.k8s.builders import RUN, SETTINGS
from tests.k8s.driving import NAME, Driver, recipe, tools
from tests.k8s.fake import FakeCluster

KEYS = (ACCESS_KEY, SECRET_KEY)


@pytest.mark.parametrize("fault", [None, "bug"])
def test_a_run_on_s3_leaves_no_key_in_its_store(
    seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: str | None
) -> None:
    store = use_server(monkeypatch, seaweedfs_server.endpoint)
    run(store, toy_graph(shards=2, **({"fault": fault} if fault else {})), retries=0)
    kept = {key: store.get(key) for key, _ in store.list("")}
    kinds = {key.split("/")[2] for key in kept if key.startswith("runs/")}
    assert {"tasks", "outcomes", "logs", "progress", "state.json"} <= kinds
    printed = "".join(capfd.readouterr()).encode()
    for secret in KEYS:
        found = [key for key, data in {**kept, "printed": printed}.items() if secret.encode() in data]
        assert found == []
    tasks = [Task.model_validate_json(data) for key, data in kept.items() if "/tasks/" in key]
    for task in tasks:
        for pods in (1, 2):
            job = render_job(RUN, task, PodSettings(pods=pods), SETTINGS)
            text = json.dumps([job, render_service(job) if is_gang(job) else None])
            assert not any(secret in text for secret in KEYS)


@pytest.mark.parametrize("fault", [None, "bug"])
def test_a_run_on_a_cluster_puts_no_key_into_any_object(
    seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: str | None
) -> None:
    store = use_server(monkeypatch, seaweedfs_server.endpoint)
    cluster = FakeCluster(store)
    cluster.add_run(NAME, recipe(shards=2))
    status = Driver(cluster, tools(cluster, store, **({"fault": fault} if fault else {}))).to_the_end()
    assert status["phase"] == ("Failed" if fault else "Succeeded")
    held = json.dumps(list(cluster.objects.values()))
    assert {resource for _, resource in cluster.objects} >= {"events", "jobs", "tailoringruns"}
    kept = b"".join(store.get(key) for key, _ in store.list("runs/"))
    printed = "".join(capfd.readouterr())
    for secret in KEYS:
        assert secret not in held and secret not in printed and secret.encode() not in kept


def test_a_secret_is_named_once_and_none_of_its_values() -> None:
    task = Task(run="r", node="n", stage="curate", settings={}, output="a/b", fingerprint="0")
    job = render_job(RUN, task, PodSettings(), SETTINGS)
    assert json.dumps(job).count(SETTINGS.store_secret) == 1
    assert "valueFrom" not in json.dumps(job)
