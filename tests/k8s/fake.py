"""A cluster in memory: what of the Kubernetes API the controller uses, and Jobs whose pods run when a test says so.

Faithful where the controller could go wrong: names are taken once, versions conflict, lists come in pages, deleting a
run deletes what it owns, a Job's indices end as its podFailurePolicy says. Pods run one after the other in this
process, as `python -m stages` would run the shard that the index stands for.
"""

from __future__ import annotations

import itertools
import json
import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s import names
from k8s.client import Answer, NoAnswer
from stages.contract.clock import stamp
from stages.contract.errors import StageError, unforeseen
from stages.contract.execute import run_shard
from stages.contract.outcome import Outcome, outcome_key
from stages.contract.store import Store
from stages.contract.task import Task, open_task

Object = dict[str, Any]
_PATH = re.compile(r"/apis?/(?:[^/]+/)?v\w+/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?(?:/([^/]+))?")


@dataclass(frozen=True)
class Dies:
    """How a pod ends other than by its stage's own word."""

    code: int = 137
    reason: str = "Error"
    disrupted: bool = False
    message: str = ""


Behaviour = Callable[[Task, int], "Dies | None"]  # (task, shard) → how the pod dies; None: its stage runs


def stage_runs(task: Task, shard: int) -> Dies | None:
    return None


@dataclass
class FakeCluster:
    """The API server of one cluster. `fault` may answer a request instead of it, `seen` has every request."""

    store: Store
    fault: Callable[[str, str], Answer | NoAnswer | None] = lambda method, path: None
    seen: list[tuple[str, str]] = field(default_factory=list)
    objects: dict[tuple[str, str], dict[str, Object]] = field(default_factory=dict)
    page: int = 500

    def __post_init__(self) -> None:
        self._versions = itertools.count(1)
        self._lock = threading.RLock()
        self._watchers: list[tuple[str, str, queue.Queue[bytes | None]]] = []

    # The transport

    def send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None, content_type: str, timeout_s: float
    ) -> Answer:
        with self._lock:
            self.seen.append((method, path))
            wrong = self.fault(method, path)
            if isinstance(wrong, NoAnswer):
                raise wrong
            if wrong is not None:
                return wrong
            found = _PATH.fullmatch(path)
            assert found is not None, path
            namespace, resource, name, subresource = found.groups()
            held = self.objects.setdefault((namespace, resource), {})
            if method == "GET" and name is None:
                return self._list(held, query)
            if method == "POST":
                assert body is not None
                return self._create(namespace, resource, held, json.loads(json.dumps(body)))
            if name not in held:
                return refusal(404, "NotFound", f'{resource} "{name}" not found')
            if method == "GET" and subresource == "log":
                return Answer(200, {}, str(held[name].get("log", "")).encode())
            if method == "PUT":
                assert body is not None
                if body["metadata"].get("resourceVersion") != held[name]["metadata"]["resourceVersion"]:
                    return refusal(409, "Conflict", "the object has been modified")
                replaced = json.loads(json.dumps(body))
                changed = replaced.get("spec") != held[name].get("spec")
                replaced["metadata"]["generation"] = held[name]["metadata"]["generation"] + changed
                self._store(resource, held, replaced, "MODIFIED")
            if method == "PATCH":
                assert body is not None
                self._patch(resource, held, name, body, subresource or "")
            if method == "DELETE":
                assert body == {"propagationPolicy": "Background"}, "a delete without a policy leaves pods behind"
                return self._answer(200, self.remove(namespace, resource, name))
            return self._answer(200, held[name])

    def lines(self, path: str, query: Mapping[str, str], timeout_s: float) -> Iterator[bytes]:
        found = _PATH.fullmatch(path)
        assert found is not None
        events: queue.Queue[bytes | None] = queue.Queue()
        with self._lock:
            self.seen.append(("WATCH", path))
            wrong = self.fault("WATCH", path)
            if wrong is not None:
                raise wrong if isinstance(wrong, NoAnswer) else NoAnswer(str(wrong.status))
            self._watchers.append((found[1], found[2], events))
        while (line := events.get()) is not None:
            yield line

    def end_watches(self) -> None:
        with self._lock:
            for _, _, events in self._watchers:
                events.put(None)
            self._watchers.clear()

    # What tests do

    def all(self, resource: str, namespace: str = "test") -> list[Object]:
        return list(self.objects.get((namespace, resource), {}).values())

    def jobs(self, node: str | None = None) -> list[Object]:
        """Every Job, or those of a node, in the order of creation."""
        return [job for job in self.all("jobs") if node in (None, job["metadata"]["labels"][names.LABEL_NODE])]

    def add_run(self, name: str, recipe: Mapping[str, Any], namespace: str = "test", **spec: Any) -> Object:
        metadata = {"name": name, "namespace": namespace}
        body = {"metadata": metadata, "spec": {"recipe": dict(recipe), **spec}}
        path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
        return json.loads(self.send("POST", path, {}, body, "", 1).body)  # type: ignore[no-any-return]

    def change_run(self, name: str, **spec: Any) -> None:
        """Changes a run's spec, as `kubectl apply` would."""
        held = self.objects["test", names.PLURAL]
        run = json.loads(json.dumps(held[name]))
        run["spec"] |= spec
        run["metadata"]["generation"] += 1
        self._store(names.PLURAL, held, run, "MODIFIED")

    def run(self, name: str) -> Object:
        return self.objects["test", names.PLURAL][name]

    def remove(self, namespace: str, resource: str, name: str) -> Object:
        """Deletes an object and what it owns."""
        with self._lock:
            gone = self.objects[namespace, resource].pop(name)
            self._tell(namespace, resource, gone, "DELETED")
            for (space, kind), held in list(self.objects.items()):
                for each in list(held.values()):
                    owners = each["metadata"].get("ownerReferences", ())
                    if space == namespace and any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                        self.remove(space, kind, each["metadata"]["name"])
            return gone

    def work(self, behave: Behaviour = stage_runs) -> int:
        """Runs the pods of every Job that is neither suspended nor over; returns how many pods ran."""
        count = 0
        for job in self.jobs():
            if not job["spec"].get("suspend") and not _over(job):
                count += self._run_job(job, behave)
        return count

    def compute(self) -> None:
        """Lets the pods of every Job publish what they make, without ending."""
        for job in self.jobs():
            _, task = open_task(job["spec"]["template"]["spec"]["containers"][0]["args"][0])
            for shard in task.shards.indices:
                run_pod(self.store, task, shard)

    def end_pod(self, job: Object, index: int, end: Dies) -> None:
        """A failed pod of a Job, as it lies there afterwards."""
        name = f"{job['metadata']['name']}-{index}-{uuid.uuid4().hex[:5]}"
        conditions = [{"type": names.DISRUPTION, "status": "True"}] if end.disrupted else []
        terminated = {"exitCode": end.code, "reason": end.reason, "finishedAt": stamp(), "message": end.message}
        pod = self._pod(job, name, index)
        pod["status"] = {
            "phase": "Failed",
            "conditions": conditions,
            "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": terminated}}],
        }
        namespace = job["metadata"]["namespace"]
        self._store("pods", self.objects.setdefault((namespace, "pods"), {}), pod, "ADDED")

    def pend_pod(self, job: Object, status: Object) -> None:
        """A pod of a Job that does not start, and says why in its status."""
        pod = self._pod(job, f"{job['metadata']['name']}-0-{uuid.uuid4().hex[:5]}", 0)
        pod["status"] = {"phase": "Pending", **status}
        namespace = job["metadata"]["namespace"]
        self._store("pods", self.objects.setdefault((namespace, "pods"), {}), pod, "ADDED")
        self.set_job(job, active=1, ready=0)

    def set_job(self, job: Object, **status: Any) -> None:
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        held = self.objects[namespace, "jobs"]
        held[name]["status"] = held[name].get("status", {}) | status
        self._store("jobs", held, held[name], "MODIFIED")

    # Jobs

    def _run_job(self, job: Object, behave: Behaviour) -> int:
        good: set[int] = set()
        bad: set[int] = set()
        spec, count = job["spec"], 0
        gang = "subdomain" in spec["template"]["spec"]
        ended, message = "", ""
        _, task = open_task(spec["template"]["spec"]["containers"][0]["args"][0])
        for index in range(spec["completions"]):
            tries = 0
            while index not in good | bad and not ended:
                count += 1
                shard = 0 if gang else task.shards.indices[index]
                end = behave(task, shard) or (None if gang and index else run_pod(self.store, task, shard))
                if end is None or not end.code:
                    good.add(index)
                    continue
                self.end_pod(job, index, end)
                action = _action(spec, end)
                if action == "FailJob":
                    ended, message = (
                        "PodFailurePolicy",
                        f"pod {index} ended with {end.code}" + (f" and {names.DISRUPTION}" if end.disrupted else ""),
                    )
                elif gang:
                    ended, message = "BackoffLimitExceeded", "a pod failed"
                elif action == "Ignore":
                    continue
                elif action == "FailIndex" or tries >= spec["backoffLimitPerIndex"]:
                    bad.add(index)
                else:
                    tries += 1
                if len(bad) > spec.get("maxFailedIndexes", 10**6):
                    ended = "MaxFailedIndexesExceeded"
            if ended:
                break
        if not ended and bad:
            ended = "FailedIndexes"
        kind = "Failed" if ended else "Complete"
        condition = {"type": kind, "status": "True", "reason": ended, "message": message}
        self.set_job(
            job,
            conditions=[condition],
            completedIndexes=",".join(map(str, sorted(good))),
            failedIndexes=",".join(map(str, sorted(bad))),
            active=0,
            ready=0,
        )
        return count

    def _pod(self, job: Object, name: str, index: int) -> Object:
        labels = {**job["spec"]["template"]["metadata"]["labels"], names.LABEL_JOB_NAME: job["metadata"]["name"]}
        return {
            "metadata": {
                "name": name,
                "namespace": job["metadata"]["namespace"],
                "labels": labels,
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [{"uid": job["metadata"]["uid"], "controller": True}],
            }
        }

    # Storage

    def _create(self, namespace: str, resource: str, held: dict[str, Object], body: Object) -> Answer:
        metadata = body["metadata"]
        if "generateName" in metadata:
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:6]
        if metadata["name"] in held:
            return refusal(409, "AlreadyExists", f'{resource} "{metadata["name"]}" already exists')
        assert metadata["namespace"] == namespace
        metadata |= {"uid": str(uuid.uuid4()), "generation": 1}
        self._store(resource, held, body, "ADDED")
        return self._answer(201, body)

    def _patch(self, resource: str, held: dict[str, Object], name: str, body: Object, subresource: str) -> None:
        merged = _merged(held[name], body)
        if subresource == "status":
            merged = {**held[name], "status": merged["status"]}
        elif merged["spec"] != held[name]["spec"]:
            merged["metadata"] = {**merged["metadata"], "generation": held[name]["metadata"]["generation"] + 1}
        self._store(resource, held, merged, "MODIFIED")

    def _store(self, resource: str, held: dict[str, Object], body: Object, kind: str) -> None:
        with self._lock:
            body["metadata"].setdefault("uid", str(uuid.uuid4()))
            body["metadata"]["resourceVersion"] = str(next(self._versions))
            held[body["metadata"]["name"]] = body
            self._tell(body["metadata"]["namespace"], resource, body, kind)

    def _tell(self, namespace: str, resource: str, body: Object, kind: str) -> None:
        line = json.dumps({"type": kind, "object": body}).encode()
        for space, watched, events in self._watchers:
            if (space, watched) == (namespace, resource):
                events.put(line)

    def _list(self, held: dict[str, Object], query: Mapping[str, str]) -> Answer:
        found = [each for each in held.values() if _selected(each, query)]
        start, size = int(query.get("continue", "0")), min(self.page, int(query.get("limit", "500")))
        more = str(start + size) if start + size < len(found) else ""
        return self._answer(200, {"items": found[start : start + size], "metadata": {"continue": more}})

    def _answer(self, status: int, body: Object) -> Answer:
        return Answer(status, {}, json.dumps(body).encode())


def run_pod(store: Store, task: Task, shard: int) -> Dies:
    """What a stage's pod does, and the exit code with which it ends."""
    code, message, started = 0, "", stamp()
    try:
        run_shard(store, task, shard, threading.Event())
    except StageError as error:
        code, message = int(error.code), str(error)
    except Exception as error:
        found, message = unforeseen(error)
        code = int(found)
    outcome = Outcome(shard=shard, attempt=task.attempt, code=code, message=message, started=started, finished=stamp())
    store.put(outcome_key(task.run, task.node, task.attempt, shard), outcome.model_dump_json().encode())
    return Dies(code)


def refusal(status: int, reason: str = "", message: str = "", **headers: str) -> Answer:
    """An answer of the API server that is none of what was asked for."""
    return Answer(status, headers, json.dumps({"reason": reason, "message": message, "code": status}).encode())


def _over(job: Object) -> bool:
    return any(each["type"] in ("Complete", "Failed") for each in job.get("status", {}).get("conditions", ()))


def _action(spec: Object, end: Dies) -> str:
    for rule in spec["podFailurePolicy"]["rules"]:
        if "onPodConditions" in rule and end.disrupted:
            return str(rule["action"])
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            if (end.code in codes["values"]) == (codes["operator"] == "In"):
                return str(rule["action"])
    return "Count"


def _selected(body: Object, query: Mapping[str, str]) -> bool:
    labels = body["metadata"].get("labels", {})
    for part in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = part.partition("=")
        if labels.get(key) != value:
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = part.partition("=")
        assert key == "status.phase", key
        if body.get("status", {}).get("phase") != value:
            return False
    return True


def _merged(base: Any, top: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(top, dict):
        return top
    merged = dict(base)
    for key, value in top.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(base.get(key), value)
    return merged
