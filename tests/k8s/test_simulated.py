"""bench/cluster.py without a cluster: what stands in for stages, what it reads from the controller and tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench import machine
from bench.sequenced import percentile
from bench.simulated import cluster
from bench.standin import Stages
from bench.watched import Metrics
from k8s.client import NoAnswer
from k8s.metrics import Metrics as Controllers
from stages.contract.artifact import Artifact
from stages.contract.outcome import outcome_key
from stages.contract.store import Store
from stages.contract.task import Task, write_task
from tests.cluster.machine import await_
from tests.support import make_task

COMMIT_S = 60.0
NODE = "it1.influence"


class Pods:
    """A watch of pods that tells of these and breaks, again and again."""

    def __init__(self, *pods: Mapping[str, Any]) -> None:
        self._lines = [json.dumps({"type": "ADDED", "object": pod}).encode() for pod in pods]
        self.asked: dict[str, str] = {}

    def lines(self, path: str, query: Mapping[str, str], timeout_s: float) -> Iterator[bytes]:
        self.asked = {"path": path, **query}
        yield from self._lines
        raise NoAnswer("the connection broke")


def pod(uri: str, index: int) -> dict[str, Any]:
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {
        "metadata": {"uid": f"{uri} {index}", "annotations": annotations},
        "spec": {"containers": [{"args": [uri]}]},
    }


def task(shards: int, times: int = 2) -> Task:
    return make_task("tests.toy.lines", {"times": times}, shards=shards, node=NODE)


def carry_out(store: Store, task: Task) -> Artifact:
    uri = write_task(store, task)
    pods = Pods(*(pod(uri, index) for index in range(task.shards.count)))
    with closing(Stages(pods, "bench", store)) as stages:  # type: ignore[arg-type]
        await_(lambda: stages.fault or stages.committed == task.shards.count, COMMIT_S, "every shard")
        assert stages.fault is None
    assert pods.asked["path"] == "/api/v1/namespaces/bench/pods"
    assert pods.asked["fieldSelector"] == "status.phase=Running"
    return Artifact(store, task.output)


def test_pods_that_run_leave_a_complete_artifact_and_outcomes(file_store: Store) -> None:
    made = task(shards=3)
    artifact = carry_out(file_store, made)
    assert len(artifact.manifest.shards) == 3 and artifact.table().num_rows == 3
    assert all(file_store.size(outcome_key(made.run, NODE, 1, shard)) for shard in range(3))


def test_two_nodes_never_have_the_same_rows(file_store: Store) -> None:
    digests = {carry_out(file_store, task(1, times)).manifest.digest for times in (2, 3)}
    assert len(digests) == 2


def test_a_stage_that_cannot_be_stood_in_for_is_no_secret(file_store: Store) -> None:
    pods = Pods(pod(f"{file_store.uri}/runs/run/tasks/none-1.json", 0))
    with closing(Stages(pods, "bench", file_store)) as stages:  # type: ignore[arg-type]
        await_(lambda: stages.fault, COMMIT_S, "a fault")
        assert stages.committed == 0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.95, 4.0), (1.0, 4.0), (0.25, 1.0)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], share) == expected


def test_the_controllers_own_metrics_are_read_back() -> None:
    from prometheus_client import generate_latest

    told = Controllers()
    for status in (200, 200, 409):
        told.request("POST", "jobs", status)
    told.request("GET", "pods", 200)
    for seconds in (0.2, 0.4):
        told.sweeps.observe(seconds)
    found = Metrics(generate_latest(told.registry).decode())
    assert found.requests() == {"POST jobs": 3, "GET pods": 1}
    assert found.mean("montessori_sweep_seconds") == pytest.approx(0.3)
    assert found.below("montessori_sweep_seconds", 0.95) == 0.5
    assert found.mean("montessori_round_seconds") == 0.0
    assert found.total("process_resident_memory_bytes") > 0


def test_the_page_has_one_section_a_cluster_with_every_part_and_what_was_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {
        "part": "wide", "indices": 10_000, "runs": 1, "jobs": 19, "pods": 10_018, "late": 1, "again": 2,
        "seconds": 61.0, "handover_s": {"p50": 0.5, "p95": 1.25, "most": 3.0, "count": 18},
        "memory_mib": {"idle": 60, "peak": 99}, "cpu_s_a_minute": 1.5,
        "requests_a_minute": {"GET jobs": 12.0, "PUT leases": 15.0},
        "sweep_s": {"mean": 0.2, "p95_below": 0.5}, "bytes": {"run": 11_000, "job": 7_000, "task": 90_000},
    }  # fmt: skip
    line = {
        "machine": "a machine", "here": True, "kubernetes": "v1.34.4", "nodes": 200, "gpus": 1600, "store": "folder",
        "parts": [part],
    }  # fmt: skip
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    assert list(cluster()) == []
    machine.save("cluster", "200-nodes-wide", line)
    many = {name: value for name, value in part.items() if name != "indices"} | {"part": "many", "runs": 50}
    machine.save("cluster", "200-nodes-many", line | {"parts": [many]})
    text = "\n".join(cluster())
    assert "| a Job of 10,000 indices | 19 | 10,018 | 61 | 0.50 | 1.25 | 3.00 | 99 | 1.5 | 0.20 |" in text
    assert "| a Job of 10,000 indices | 12 | 0 | 0 | 0 | 0 | 0 | 15 | 11,000 | 7,000 | 90,000 |" in text
    assert text.count("## ") == 1 and text.count("| 50 runs at once |") == 2
    assert "4 attempts were made again; 2 results" in text
