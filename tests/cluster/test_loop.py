"""The same recipe makes the same rows and weights in a cluster as on one machine, trainings over two pods included."""

from __future__ import annotations

import json

from stages.contract.logs import log_prefix, read_log
from tests.cluster.loop import NAME, Loop
from tests.cluster.machine import kubectl
from tests.cluster.release import KEYS
from tests.cluster.tiny import RANKS

# What an artifact holds of its own run: the report's figures are times.
OF_THE_RUN = {"report"}


def test_a_cluster_makes_what_one_machine_makes(loop: Loop) -> None:
    cluster, local = loop.cluster(), loop.local()
    assert cluster.keys() == local.keys()
    different = [node for node in cluster if cluster[node] != local[node] and node not in OF_THE_RUN]
    assert different == []


def test_a_training_that_lost_a_pod_went_on_from_its_checkpoint(loop: Loop) -> None:
    loop.cluster()
    assert set(loop.killed) == {"it1.dpo", "tailored.sft"}
    for node in loop.killed:
        attempts = sum(1 for _ in loop.release.store.list(f"runs/{NAME}/tasks/{node}-"))
        assert attempts == 2, node
        for pod in range(RANKS):
            log = read_log(loop.release.store, log_prefix(NAME, node, 2, 0, pod))
            assert "going on from a checkpoint" in log, (node, pod)


def test_influence_had_two_ranks_in_each_of_two_pods(loop: Loop) -> None:
    loop.cluster()
    jobs = loop.release.jobs(NAME, "it1.influence")
    assert [job["spec"]["completions"] for job in jobs] == [2]
    assert loop.release.artifact(NAME, "it1.influence").manifest.settings["ranks"] == RANKS


def test_the_command_line_tells_of_the_run(loop: Loop) -> None:
    loop.cluster()
    status = json.loads(loop.release.cli("status", NAME, "-n", loop.release.namespace, "-o", "json"))
    assert {node["state"] for node in _nodes(status)} == {"done"}
    plan = loop.release.cli("plan", str(loop.recipe), "-n", loop.release.namespace)
    assert f"{len(_nodes(status))} of {len(_nodes(status))} nodes are cached" in plan
    log = loop.release.cli("logs", "it1.curate", "--run", NAME, "-n", loop.release.namespace)
    assert "done" in log
    second = loop.release.cli("logs", "it1.dpo", "--pod", "1", "--run", NAME, "-n", loop.release.namespace)
    assert "going on from a checkpoint" in second


def test_the_stores_key_is_written_nowhere(loop: Loop) -> None:
    loop.cluster()
    release, secret = loop.release, KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    keys = [key for key, _ in release.store.list("")]
    assert any(key.startswith("runs/") for key in keys)
    assert [key for key in keys if secret in release.store.get(key)] == []
    kinds = "tailoringruns,jobs,pods,events,configmaps,deployments"
    assert secret.decode() not in kubectl("get", kinds, "-n", release.namespace, "-o", "yaml")
    assert secret.decode() not in kubectl("logs", "-n", release.namespace, f"deployment/{release.controller}")


def _nodes(status: dict[str, object]) -> list[dict[str, str]]:
    nodes = status["nodes"]
    found = list(nodes.values()) if isinstance(nodes, dict) else nodes
    assert isinstance(found, list)
    return found
