"""Every scenario of charts/montessori/ci, installed side by side, each in a restricted namespace of its own.

What a scenario names and a cluster for tests lacks is brought (Secrets, the Prometheus Operator's kinds, what EKS adds
to pods), or another address is in its place where the same is seen: of a store nobody answers for, of a registry
without the image.
"""

from __future__ import annotations

import json
import random
import subprocess
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import yaml

from tests.cluster import identity
from tests.cluster.machine import HELM, START_S, Json, await_, kubectl, kubectl_json
from tests.cluster.release import CHART, MODELS, named, restricted_namespace
from tests.cluster.toy import MARK

NAMES = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
RELEASE = "chart"
NOBODY = "https://127.0.0.1:9"  # of the pod itself: nothing listens there
STORED = ("existing-secret", "kind", "minio", "monitoring")  # scenarios whose store is there
_NO_QUEUE: Json = {"queue": None, "node_selector": {}, "tolerations": [], "shm": "64Mi"}
# Runs that are begun with a scenario: what their pods ask for
RUNS: dict[str, dict[str, Json]] = {
    "monitoring": {"toy": {}},
    "keys": {"no-store": {}},
    "workload-identity": {"no-keys": {}},
    "gpu": {"queued": {}, "no-room": _NO_QUEUE | {"gpus": 64}, "no-image": _NO_QUEUE | {"gpus": 0}},
}
_KEYS = "montessori-keys"  # the Secret that scenarios name; here with keys of the MinIO of scenario `kind`
_SMALL: Json = {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}}


class Scenarios:
    """The scenarios by name; what is in their namespaces, and `helm test` of some, begun as soon as they stand.

    Args:
        image: of the stages, and of the controller whose run is to succeed: it knows toys.
        controller: of all others.
    """

    def __init__(self, image: str, controller: str) -> None:
        self.image = image
        self.controller = controller
        mark = uuid.uuid4().hex[:8]
        self._namespaces = {name: f"montessori-{name}-{mark}" for name in NAMES}
        self._pool = ThreadPoolExecutor(3)
        self._installed: dict[str, Future[str]] = {name: self._pool.submit(self._install, name) for name in NAMES}
        self._tested: dict[str, Future[tuple[int, str]]] = {
            name: self._pool.submit(self._helm_test, name) for name in ("keys", *STORED)
        }

    def namespace(self, name: str) -> str:
        """Its namespace, once everything in it has been created."""
        self._installed[name].result()
        return self._namespaces[name]

    def warnings(self, name: str) -> str:
        """What the API server had to say against the manifests that it took."""
        return self._installed[name].result()

    def helm_test(self, name: str) -> tuple[int, str]:
        """Exit code and output of `helm test`."""
        return self._tested[name].result()

    def full_name(self, name: str) -> str:
        values = self._of_chart(name)
        return str(values.get("fullnameOverride") or RELEASE)

    def wait(self, name: str) -> None:
        """Until each Deployment's pod is Ready."""
        for each in kubectl_json("get", "deployments", "-n", self.namespace(name))["items"]:
            kubectl(
                "rollout", "status", f"deployment/{each['metadata']['name']}", "-n", self.namespace(name),
                f"--timeout={START_S:.0f}s", timeout=START_S + 10,
            )  # fmt: skip

    def condition(self, name: str, run: str, kind: str, reason: str, words: str) -> Json:
        """The condition of this type, once it has this reason and says so much."""

        def found() -> Json | None:
            status = kubectl_json("get", "trun", run, "-n", self.namespace(name)).get("status", {})
            told = {each["type"]: each for each in status.get("conditions", ())}
            condition = told.get(kind, {})
            assert condition.get("reason") == reason and words in condition["message"], f"conditions: {told}"
            return condition

        condition: Json = await_(found, START_S, f"{kind} of {run} to be {reason}: {words}")
        return condition

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *self._namespaces.values())

    # Installing

    def _install(self, name: str) -> str:
        namespace = self._namespaces[name]
        restricted_namespace(namespace)
        self._bring_secrets(name)
        changes = json.dumps(self._changes(name))
        added = identity.arguments(self._minio()) if name == "workload-identity" else []
        done = subprocess.run(
            [*HELM, "install", RELEASE, str(CHART), "-n", namespace, "-f", str(_file(name)), "-f", "-", *added],
            input=changes, capture_output=True, text=True, timeout=START_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr}"
        for run, pods in RUNS.get(name, {}).items():
            asked = {"default": {"cpu": "10m", "memory": "320Mi", **pods}}
            toy = MODELS | {"about": MARK + '{"count": 8}', "run": {"pods": asked}}
            kind = {"apiVersion": "montessori.dev/v1alpha1", "kind": "TailoringRun"}
            body = kind | {"metadata": {"name": run}, "spec": {"recipe": toy}}
            kubectl("create", "-n", namespace, "-f", "-", given=json.dumps(body))
        return done.stderr

    def _bring_secrets(self, name: str) -> None:
        values = self._of_chart(name)
        namespace = self._namespaces[name]
        if values.get("store", {}).get("existingSecret") == _KEYS:
            kind = self._of_chart("kind")["minio"]
            keys = {
                "AWS_ACCESS_KEY_ID": "montessori",
                "AWS_SECRET_ACCESS_KEY": kind["rootPassword"],
                "AWS_ENDPOINT_URL": self._minio(),
                "AWS_REGION": "us-east-1",
            }
            pairs = [f"--from-literal={key}={value}" for key, value in keys.items()]
            kubectl("create", "secret", "generic", _KEYS, "-n", namespace, *pairs)
        for each in values.get("imagePullSecrets", ()):
            user = ("--docker-server=registry.example.com", "--docker-username=u", "--docker-password=p")
            kubectl("create", "secret", "docker-registry", each, "-n", namespace, *user)

    def _changes(self, name: str) -> Json:
        """What cannot be as the scenario has it: there is one definition in a cluster, and these images and hosts."""
        values = self._of_chart(name)
        image = named(self.image)
        controller = image if name == "monitoring" else named(self.controller)
        changes: Json = {
            "crds": {"install": False},
            "controller": {"image": controller, "intervalSeconds": 3, **_SMALL},
            "stages": {"image": image},
            "minio": _SMALL,
        }
        if name == "gpu":  # its own digest, which this registry lacks as any does
            repository = image["repository"].rpartition("/")[0] or "localhost"
            changes["stages"] = {"image": {"repository": f"{repository}/montessori-gpu"}}
        if "endpoint" in values.get("store", {}):
            changes["store"] = {"endpoint": NOBODY}
        if values.get("minio", {}).get("nodePort"):
            changes["minio"] = _SMALL | {"nodePort": random.randrange(30_000, 32_768), "persistence": {"size": "1Gi"}}
        return changes

    def _minio(self) -> str:
        return f"http://{RELEASE}-minio.{self._namespaces['kind']}.svc:9000"

    @staticmethod
    def _of_chart(name: str) -> Json:
        found: Json = yaml.safe_load(_file(name).read_text(encoding="utf-8"))
        return found

    def _helm_test(self, name: str) -> tuple[int, str]:
        self.wait("kind")  # whose MinIO others use
        self.wait(name)
        command = [*HELM, "test", RELEASE, "-n", self._namespaces[name], "--logs", "--timeout", f"{START_S:.0f}s"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S + 30)
        return done.returncode, done.stdout + done.stderr


def _file(name: str) -> Path:
    return CHART / "ci" / f"{name}.yaml"
