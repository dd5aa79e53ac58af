"""A namespace with the chart in it: the controller, MinIO, runs and what becomes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from flow.runstate import read_resolved
from k8s import names
from k8s.client import Client, HttpTransport
from stages.contract.artifact import Artifact
from stages.contract.store import FileStore, Store, open_store
from stages.contract.task import Task, task_key
from tests.cluster.access import RESTRICTED
from tests.cluster.machine import RUN_S, START_S, Forward, Json, await_, helm, kubectl, kubectl_json
from tests.cluster.toy import LINES, MARK, NUMBERS
from tests.support import REPOSITORY, artifact_input, run_stage

CHART = REPOSITORY / "charts" / "montessori"
KEYS = {"AWS_ACCESS_KEY_ID": "montessori", "AWS_SECRET_ACCESS_KEY": "montessori-test-0123"}
BUCKET = "montessori"
KEYS_OF_BOTO3 = {name.lower(): value for name, value in KEYS.items()} | {"region_name": "us-east-1"}
CRD = f"{names.PLURAL}.montessori.dev"
MEMORY = "320Mi"  # of a toy's pod: Python, pyarrow, and room for no more than that
JUDGE_LABELS = {"app.kubernetes.io/name": "judge"}  # of the server that test_signals.py starts
MODELS: Json = {"teacher": {"model": "builtin:smollm2"}, "student": {"model": "builtin:smollm2", "drop_layers": [3]}}


def named(image: str) -> Json:
    """An image, as the chart's values have it."""
    repository, _, digest = image.partition("@")
    tag = ""
    if not digest:
        repository, _, tag = image.rpartition(":")
    return {"repository": repository, "tag": tag, "digest": digest}


def values(image: str, controller: str = "", **changes: Any) -> Json:
    """What a test sets of the chart's values."""
    return {
        "crds": {"install": False},
        "controller": {"image": named(controller or image), "intervalSeconds": 3},
        "stages": {"image": named(image), "flavor": "cpu", "pods": {"default": {"cpu": "20m", "memory": "3Gi"}}},
        "networkPolicies": {"stagesEgress": [{"to": [{"podSelector": {"matchLabels": JUDGE_LABELS}}]}]},
        "minio": {
            "enabled": True,
            "bucket": BUCKET,
            "rootUser": KEYS["AWS_ACCESS_KEY_ID"],
            "rootPassword": KEYS["AWS_SECRET_ACCESS_KEY"],
            "persistence": {"enabled": True, "size": "1Gi"},
            "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        },
    } | changes


def restricted_namespace(name: str) -> None:
    """A namespace that enforces the restricted Pod Security standard."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    kubectl("create", "-f", "-", given=json.dumps(body))


class Release:
    """The chart, installed for the session; runs of it are told apart by their names.

    Args:
        namespace: made for it.
        image: of the stages.
        controller: the controller's own image; without one it comes out of `image`, which knows toy graphs.
    """

    def __init__(self, namespace: str, image: str, controller: str = "") -> None:
        self.namespace = namespace
        self.image = image
        restricted_namespace(namespace)
        self._defined = not kubectl("get", "crd", CRD, "--ignore-not-found", "-o", "name")
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "files" / f"{names.PLURAL}.yaml"))
        helm(
            "install", "test", str(CHART), "--namespace", namespace, "--values", "-", "--wait",
            "--timeout", f"{START_S:.0f}s", given=json.dumps(values(image, controller)), timeout=START_S + 30,
        )  # fmt: skip
        self.deployments = {
            each["metadata"]["labels"].get("app.kubernetes.io/component", each["metadata"]["name"]): each
            for each in kubectl_json("get", "deployments", "-n", namespace)["items"]
        }
        self.client = Client(HttpTransport(), namespace)
        service = self._minio_service()
        self.forward = Forward(namespace, service, 9000)
        self.environment = KEYS | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.forward.port}",
            "AWS_REGION": "us-east-1",
            "MONTESSORI_STORE_PATIENCE": "60",
        }
        os.environ.update(self.environment)
        self.store: Store = open_store(self.store_uri())
        self._bucket().Versioning().enable()

    def _minio_service(self) -> str:
        services = kubectl_json("get", "services", "-n", self.namespace)["items"]
        return next(
            each["metadata"]["name"]
            for each in services
            if any(port["port"] == 9000 for port in each["spec"].get("ports", ()))
        )

    def store_uri(self) -> str:
        return str(self.controller_environment()["MONTESSORI_CONTROLLER_STORE"])

    def controller_environment(self) -> dict[str, str]:
        """What the chart tells the controller, from its ConfigMap."""
        maps = kubectl_json("get", "configmaps", "-n", self.namespace)["items"]
        found: dict[str, str] = next(each["data"] for each in maps if "MONTESSORI_CONTROLLER_STORE" in each["data"])
        return found

    def close(self) -> None:
        self.forward.close()
        kubectl("delete", "namespace", self.namespace, "--wait=false")
        if self._defined:  # by this; with it go all runs
            kubectl("delete", "crd", CRD, "--wait=false")

    def _bucket(self) -> Any:
        return boto3.resource("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **KEYS_OF_BOTO3).Bucket(BUCKET)

    def written(self, prefix: str) -> Counter[str]:
        """How often each object under a key's prefix was written: the bucket keeps every version."""
        within = self.store_uri().removeprefix(f"s3://{BUCKET}").strip("/")
        found = self._bucket().object_versions.filter(Prefix=f"{within}/{prefix}" if within else prefix)
        return Counter(version.key.removeprefix(f"{within}/") for version in found if version.size is not None)

    # Runs

    def apply(self, name: str, recipe: Mapping[str, Any]) -> None:
        """Creates a TailoringRun, as `kubectl apply` would."""
        self.client.create(
            "tailoringruns",
            {
                "apiVersion": "montessori.dev/v1alpha1",
                "kind": "TailoringRun",
                "metadata": {"name": name},
                "spec": {"recipe": dict(recipe)},
            },
        )

    def toy(self, name: str, *, memory: str = MEMORY, retries: int = 3, **graph: Any) -> None:
        """Starts a run of the toy graph."""
        pods = {"default": {"cpu": "10m", "memory": memory}}
        self.apply(name, MODELS | {"about": MARK + json.dumps(graph), "run": {"retries": retries, "pods": pods}})

    def run(self, name: str) -> Json:
        found = self.client.get("tailoringruns", name)
        assert found is not None, f"there is no run {name}"
        return found

    def phase(self, name: str) -> str:
        return str(self.run(name).get("status", {}).get("phase", ""))

    def ended(self, name: str, phase: str = "Succeeded", within: float = RUN_S) -> Json:
        """The run's status once it has ended, which must be in this phase."""
        over = ("Succeeded", "Failed", "Cancelled")
        try:
            await_(lambda: self.phase(name) in over, within, f"the end of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story(name)}") from None
        status: Json = self.run(name)["status"]
        assert status["phase"] == phase, f"{status}\n{self.story(name)}"
        return status

    def story(self, name: str) -> str:
        """What a person would look at when a run did not do as it should."""
        selector = f"montessori.dev/run={name}"
        parts = [
            json.dumps(self.run(name).get("status", {}), indent=1),
            kubectl("get", "jobs,pods", "-n", self.namespace, "-l", selector, "-o", "wide"),
            kubectl("get", "events", "-n", self.namespace, "--sort-by=.lastTimestamp")[-3000:],
            kubectl("logs", "-n", self.namespace, f"deployment/{self.controller}", "--tail=30"),
        ]
        return "\n".join(parts)

    def jobs(self, name: str, node: str | None = None) -> list[Json]:
        return list(self.client.list("jobs", labels=_selector(name, node)))

    def pods(self, name: str, node: str | None = None) -> list[Json]:
        return list(self.client.list("pods", labels=_selector(name, node)))

    def running_pod(self, name: str, node: str, index: int = 0) -> Json:
        """The pod of this index, once it runs."""

        def found() -> Json | None:
            for pod in self.pods(name, node):
                at = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
                if at == str(index) and pod["status"]["phase"] == "Running" and not _going(pod):
                    return pod
            return None

        pod: Json = await_(found, RUN_S, f"a running pod {index} of {node} of {name}")
        return pod

    @property
    def controller(self) -> str:
        return next(name for name in self._deployment_names() if "minio" not in name)

    @property
    def minio(self) -> str:
        return next(name for name in self._deployment_names() if "minio" in name)

    def _deployment_names(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.deployments.values()]

    def scale(self, deployment: str, replicas: int) -> None:
        kubectl("scale", "-n", self.namespace, f"deployment/{deployment}", f"--replicas={replicas}")
        kubectl(
            "rollout", "status", "-n", self.namespace, f"deployment/{deployment}", f"--timeout={START_S:.0f}s",
            timeout=START_S + 10,
        )  # fmt: skip
        if not replicas:  # that rollout is over while the last pod still ends, and works
            found = next(each for each in self.deployments.values() if each["metadata"]["name"] == deployment)
            labels = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"]["matchLabels"].items())
            await_(lambda: not list(self.client.list("pods", labels=labels)), START_S, f"the end of {deployment}")

    # Results

    def artifact(self, name: str, node: str) -> Artifact:
        return Artifact(self.store, read_resolved(self.store, name)["nodes"][node]["key"])

    def digests(self, name: str) -> dict[str, str]:
        """Each node's artifact by the digest in its manifest, after reading all of it back."""
        nodes = read_resolved(self.store, name)["nodes"]
        found = {}
        for node in nodes:
            artifact = self.artifact(name, node)
            assert artifact.table().num_rows, node
            found[node] = artifact.manifest.digest
        return found

    def output(self, name: str, node: str) -> str:
        """Where a node that was started publishes."""
        return Task.model_validate_json(self.store.get(task_key(name, node, 1))).output

    def cli(self, *arguments: str, timeout: float = 120.0, **environment: str) -> str:
        """What `montessori` prints."""
        program = [sys.executable, "-m", "k8s.cli", *arguments]
        done = subprocess.run(
            program,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=REPOSITORY,
            env=os.environ | self.environment | {"COLUMNS": "200"} | environment,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout


def undisturbed(folder: Path, *, count: int = 48, times: int = 2, **_: Any) -> dict[str, str]:
    """What the toy graph's artifacts are where nothing happens to them: run in this process."""
    store = FileStore(folder / "undisturbed")
    numbers = run_stage(store, NUMBERS, {"count": count})
    lines = run_stage(store, LINES, {"times": times}, {"rows": artifact_input(numbers)})
    again = run_stage(store, LINES, {}, {"rows": artifact_input(lines)})
    made = {"numbers": numbers, "lines": lines, "again": again}
    return {name: artifact.manifest.digest for name, artifact in made.items()}


def _selector(name: str, node: str | None) -> str:
    return f"montessori.dev/run={name}" + (f",montessori.dev/node={node}" if node else "")


def _going(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]
