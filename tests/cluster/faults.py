"""What is done to a toy run while it works, and what must be true of it afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.machine import RUN_S, Json, await_, kubectl
from tests.cluster.release import Release, undisturbed

# Two shards of six chunks; both stop before their third until they are told to go on.
HELD: Json = {"count": 48, "shards": 2, "hold_at": 2}
COMMITTED = 2 * HELD["hold_at"]


class UnderWay:
    """A toy run whose shards have committed two chunks each and wait, until `go`.

    Args:
        times: makes its artifacts its own; those of equal settings would be shared with another run.
    """

    def __init__(self, release: Release, name: str, *, times: int, **changes: Any) -> None:
        self.release = release
        self.name = name
        self.graph = HELD | {"times": times} | changes
        retries = self.graph.pop("retries", 3)
        release.toy(name, retries=retries, **self.graph)
        self.pod: Json = release.running_pod(name, "lines")
        self.output = release.output(name, "lines")
        await_(lambda: len(self.records()) == COMMITTED, RUN_S, f"the first chunks of {name}")
        self.committed = self.records()

    @property
    def job(self) -> str:
        name: str = self.pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        return name

    def go(self) -> None:
        self.release.store.put(f"runs/{self.name}/go", b"")

    def ends_undisturbed(self, folder: Path, within: float = RUN_S) -> Json:
        """Waits for the end; the artifacts are those of a run to which nothing happened, and nothing was made twice."""
        self.go()
        status = self.release.ended(self.name, within=within)
        assert self.release.digests(self.name) == undisturbed(folder, **self.graph)
        now = self.records()
        assert self.committed.items() <= now.items(), "what was committed before the fault was made again"
        assert len(now) == 12
        self.published_once()
        return status

    def published_once(self) -> None:
        """Each chunk's record, and each manifest of the shards and of the whole, has one version."""
        written = self.release.written(f"{self.output}/")
        assert {key: written[key] for key in self.records()} == dict.fromkeys(self.records(), 1)
        manifests = {key: count for key, count in written.items() if key.endswith("/manifest.json")}
        assert list(manifests.values()) == [1] * (1 + self.graph["shards"]), manifests

    def attempts(self, node: str = "lines") -> int:
        prefix = f"runs/{self.name}/tasks/{node}-"
        return sum(1 for _ in self.release.store.list(prefix))

    def records(self) -> dict[str, bytes]:
        """Each committed chunk's record."""
        store = self.release.store
        keys = [key for key, _ in store.list(f"{self.output}/") if "/chunk-" in key and key.endswith(".json")]
        return {key: store.get(key) for key in keys}


def evict(namespace: str, pod: str) -> None:
    """Asks for an eviction as a drain does: the pod gets the condition DisruptionTarget and SIGTERM."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    kubectl("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-", given=json.dumps(body))


def twin(pod: Json) -> Json:
    """Another pod of the same index, as a Job controller that lost sight of the first would make."""
    metadata = {key: pod["metadata"][key] for key in ("namespace", "annotations")}
    index = "batch.kubernetes.io/job-completion-index"  # the stage reads it; by the others the Job would take it in
    metadata |= {"generateName": "twin-", "labels": {index: pod["metadata"]["labels"][index]}}
    spec = {key: value for key, value in pod["spec"].items() if key not in ("nodeName", "hostname", "tolerations")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
