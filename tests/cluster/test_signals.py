"""A judge behind a server and a student in context, as Jobs: what they score is what one machine scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.graph import Edge
from flow.recipe import load_recipe
from stages.contract.artifact import Artifact
from stages.contract.store import FileStore
from stages.contract.task import Input
from tests.cluster import judge, tiny
from tests.cluster.machine import RUN_S, START_S, kubectl
from tests.cluster.release import JUDGE_LABELS, Release
from tests.cluster.signals import SHARDS, SIGNALS, signals_graph
from tests.cluster.toy import SIGNALS_MARK
from tests.generation.server import serving
from tests.support import artifact_input, model_input, run_stage, tiny_llama

NAME = "signals"
SAMPLES = 2
POD = {"cpu": "50m", "memory": "3Gi"}


def recipe(folder: Path, url: str, **changes: Any) -> Path:
    student = folder / "student"
    if not student.exists():
        tiny_llama(student, seed=2, length=1024, words=("Yes", "No", "7"))
    engine = {"kind": "openai", "base_url": url, "model": "judge"}
    values = {
        "about": SIGNALS_MARK,
        "method": "arte",  # it reads both sections
        "teacher": {"model": "builtin:smollm2"},  # only named: the judge is the server's
        "student": {"model": str(student)},
        "judge": {"engine": engine, "samples": SAMPLES, "least_parsed": 0.0, "chunk_rows": 4},
        # What a random student says is no answer: the turn that is begun for it holds one, right for some questions.
        "incontext": {
            "engine": {"kind": "transformers", "dtype": "float32", "max_model_len": 1024},
            "begun": "So the answer is Yes or 7",
            "chunk_rows": 4,
        },
    }
    return tiny.write(folder, NAME, values, **changes)


@pytest.fixture(scope="module")
def server(release: Release) -> Iterator[str]:
    """The judge as a pod of the release's namespace, and its address for other pods."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "judge", "labels": JUDGE_LABELS},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "judge",
                    "image": release.image,
                    "command": ["python", "-m", "tests.cluster.judge"],
                    "ports": [{"containerPort": judge.PORT}],
                    "readinessProbe": {"tcpSocket": {"port": judge.PORT}, "periodSeconds": 1},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "judge"},
        "spec": {"selector": JUDGE_LABELS, "ports": [{"port": judge.PORT}]},
    }
    for each in (service, pod):
        kubectl("create", "-n", release.namespace, "-f", "-", given=json.dumps(each))
    kubectl(
        "wait", "-n", release.namespace, "pod/judge", "--for=condition=Ready", f"--timeout={START_S:.0f}s",
        timeout=START_S + 10,
    )  # fmt: skip
    yield f"http://judge:{judge.PORT}/v1"
    kubectl("delete", "-n", release.namespace, "pod/judge", "service/judge", "--grace-period=0", "--force")


@pytest.fixture(scope="module")
def scored(release: Release, server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Both signals, scored in the cluster."""
    path = recipe(tmp_path_factory.mktemp("cluster"), server, run={"pods": {"default": POD}})
    release.cli("submit", str(path), "-n", release.namespace)
    release.ended(NAME, within=RUN_S)
    return {name: release.artifact(NAME, name) for name in SIGNALS}


def here(folder: Path) -> dict[str, Artifact]:
    """Both signals, scored in this process."""
    store = FileStore(folder / "store")
    with serving(judge.answer) as server:
        graph = signals_graph(load_recipe(recipe(folder, server.url)))
        made: dict[str, Artifact] = {}
        for node in graph.nodes.values():
            inputs: dict[str, Input] = {
                name: artifact_input(made[each.node]) if isinstance(each, Edge) else model_input(Path(each.model))
                for name, each in node.inputs.items()
            }
            settings = node.settings.model_dump(mode="json")
            made[node.name] = run_stage(store, node.stage, settings, inputs, shards=node.shards)
    return {name: made[name] for name in SIGNALS}


def test_a_cluster_scores_as_one_machine_does(scored: dict[str, Artifact], tmp_path: Path) -> None:
    local = here(tmp_path)
    for name in SIGNALS:
        assert scored[name].table().to_pylist() == local[name].table().to_pylist()
        assert len(scored[name].manifest.shards) == SHARDS


def test_a_judge_that_refuses_or_cannot_be_read_cost_no_score(scored: dict[str, Artifact]) -> None:
    answers = scored["judge"].table("answers").to_pylist()
    assert {answer["reason"] for answer in answers} == {None, "no_score", "out_of_range"}
    assert all((answer["rating"] is None) == (answer["reason"] is not None) for answer in answers)
    for row in scored["judge"].table().to_pylist():
        assert (row["score"] is None) == (not row["ratings"])
        assert row["score"] is None or row["score"] >= 2


def test_every_candidate_was_asked_the_whole_preference_set_of_its_task(scored: dict[str, Artifact]) -> None:
    rows = scored["incontext"].table().to_pylist()
    assert rows and {row["asked"] for row in rows} == {5}
    assert all((row["score"] is None) == (row["parsed"] == 0) for row in rows)
    assert any(row["score"] for row in rows)
