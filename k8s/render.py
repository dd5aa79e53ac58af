"""A task as an Indexed Job, pure: the same arguments give the same manifest, and nothing is looked up.

What a recipe can say reaches a manifest in validated fields only (`flow.pods`). Image, command, environment, volumes,
service account and security context are written here, from the operator's settings.

A pod's end, and who acts on it (first rule that fits):

    evicted, drained, preempted   the Job starts another pod; nothing is counted
    64, 66                        the Job ends: the run stops
    65, 76, 137                   the index ends: bad data, or the next attempt has a smaller micro-batch
    anything else                 the Job tries the index once more beside the others, then `flow.decide` goes on

The Job's own retry is there so that a shard need not wait hours for the others of its attempt. A training over several
pods is one piece: whichever pod ends badly ends the Job, and the next attempt resumes from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flow.pods import PodSettings
from k8s import names
from stages.contract.errors import ExitCode
from stages.contract.task import Task

SECONDS_PER_DAY = 86_400
KILLED = 128 + 9  # what the kernel's OOM killer leaves, among others
GRACE_SECONDS = 120  # from SIGTERM to SIGKILL: a trainer writes its checkpoint, a shard its chunk
USER = 10001
# A Job is ended early once more indices than this share failed: what they teach (halve the micro-batch) is known then.
FAILED_SHARE = 0.1
LEAST_FAILED = 8
MOST_FAILED = 10_000  # Kubernetes' limit for Jobs of over 100,000 indices
# All annotations of an object together may have 256 KiB. A map that is longer stands in the task alone.
LONGEST_SHARDS = 128 * 1024

Manifest = dict[str, Any]

# Spot nodes by provider; terms of a preference are alternatives.
_SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "kubernetes.azure.com/scalesetpriority": "spot",
    "karpenter.sh/capacity-type": "spot",
}
_SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


@dataclass(frozen=True)
class RunRef:
    """The TailoringRun that owns what is rendered. `retries` is the recipe's `run.retries`."""

    name: str
    namespace: str
    uid: str
    retries: int = 3


@dataclass(frozen=True)
class RenderSettings:
    """What the operator says of stage pods.

    Attributes:
        store: URI of the store, without keys.
        image: the stage image.
        store_secret: Secret whose keys become the pods' environment; empty with workload identity.
        service_account: of the pods; its token is not mounted.
    """

    store: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    store_secret: str = ""
    service_account: str = "default"
    ttl_seconds: int = SECONDS_PER_DAY


def render_job(run: RunRef, task: Task, pods: PodSettings, controller: RenderSettings) -> Manifest:
    """The Job of one attempt at one node; for `pods.pods` > 1 a training over that many pods (see `render_service`).

    Returns:
        A complete `batch/v1` Job as JSON values, with its spec's hash in its name and an annotation.
    """
    labels = names.labels(run.name, task.node, task.attempt)
    # An attempt's number may come again when a store was emptied; another run's Job of the same name is not ours.
    unnamed = {
        "task": f"{controller.store}/{task.key}",
        "owner": run.uid,
        "job": _job_spec("", run, task, pods, controller, labels),
    }
    mark = names.spec_hash(unnamed)
    name = names.job_name(run.name, task.node, mark)
    metadata: Manifest = _metadata(name, run, labels)
    metadata["annotations"] = {names.ANNOTATION_SPEC_HASH: mark}
    if len(shards := as_ranges(task.shards.indices)) <= LONGEST_SHARDS:
        metadata["annotations"][names.ANNOTATION_SHARDS] = shards
    if pods.queue:
        metadata["labels"] = labels | {names.LABEL_QUEUE: pods.queue}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": _job_spec(name, run, task, pods, controller, labels),
    }


def render_service(job: Manifest) -> Manifest:
    """The headless Service through which the pods of a training find each other, named as its Job.

    Addresses of pods that are not ready are published: no pod is ready before all have met. Owned as the Job is, so
    that it can be there first.
    """
    metadata = job["metadata"]
    kept = {key: value for key, value in metadata["labels"].items() if key != names.LABEL_QUEUE}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": kept,
            "ownerReferences": metadata["ownerReferences"],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB_NAME: metadata["name"]},
            "ports": [{"name": "rendezvous", "port": names.RENDEZVOUS_PORT}],
        },
    }


def as_ranges(indices: Sequence[int]) -> str:
    """Numbers as Kubernetes writes a Job's indices: 0-3,7. Their order is kept."""
    spans: list[list[int]] = []
    for each in indices:
        if spans and each == spans[-1][1] + 1:
            spans[-1][1] = each
        else:
            spans.append([each, each])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def is_gang(job: Manifest) -> bool:
    """Whether a rendered Job needs `render_service`'s Service."""
    return "subdomain" in job["spec"]["template"]["spec"]


def _metadata(name: str, run: RunRef, labels: Manifest) -> Manifest:
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {"name": name, "namespace": run.namespace, "labels": dict(labels), "ownerReferences": [owner]}


def _job_spec(
    name: str, run: RunRef, task: Task, pods: PodSettings, controller: RenderSettings, labels: Manifest
) -> Manifest:
    gang = pods.pods > 1
    completions = pods.pods if gang else len(task.shards.indices)
    most = completions if gang else min(completions, pods.parallelism or MOST_FAILED)
    spec: Manifest = {
        "completionMode": "Indexed",
        "completions": completions,
        "parallelism": most,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _rules_of_a_gang() if gang else _rules()},
        "ttlSecondsAfterFinished": max(controller.ttl_seconds, SECONDS_PER_DAY),
        "template": _template(name, task, pods, controller, labels),
    }
    if gang:
        spec["backoffLimit"] = 0
    else:
        spec["backoffLimitPerIndex"] = min(1, run.retries) if completions > 1 else 0
        spec["maxFailedIndexes"] = min(completions, MOST_FAILED, max(LEAST_FAILED, int(completions * FAILED_SHARE)))
    if pods.queue:
        spec["suspend"] = True
    return spec


def _rules() -> list[Manifest]:
    return [
        {"action": "Ignore", "onPodConditions": [{"type": names.DISRUPTION, "status": "True"}]},
        _on("FailJob", ExitCode.BAD_SETTINGS, ExitCode.GATE),
        _on("FailIndex", ExitCode.BAD_DATA, ExitCode.OUT_OF_MEMORY, KILLED),
        _on("Count", 0, negated=True),
    ]


def _rules_of_a_gang() -> list[Manifest]:
    """A pod that is replaced alone would wait for others that are ending: the first pod to go ends the Job.

    The condition that a rule names stands in the Job's own status, also when its pods are gone.
    """
    return [
        {"action": "FailJob", "onPodConditions": [{"type": names.DISRUPTION, "status": "True"}]},
        _on("FailJob", ExitCode.BAD_SETTINGS, ExitCode.GATE),
        _on("Count", 0, negated=True),
    ]


def _on(action: str, *codes: int, negated: bool = False) -> Manifest:
    values = sorted(int(code) for code in codes)
    return {
        "action": action,
        "onExitCodes": {
            "containerName": names.CONTAINER,
            "operator": "NotIn" if negated else "In",
            "values": values,
        },
    }


def _template(name: str, task: Task, pods: PodSettings, controller: RenderSettings, labels: Manifest) -> Manifest:
    annotations = {names.ANNOTATION_TOPOLOGY: pods.topology} if pods.topology and pods.queue else {}
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "serviceAccountName": controller.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(name, task, pods, controller)],
        "volumes": _volumes(pods),
    }
    if pods.pods > 1:
        spec["subdomain"] = name
    if controller.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in controller.image_pull_secrets]
    if pods.max_runtime_seconds:
        spec["activeDeadlineSeconds"] = pods.max_runtime_seconds
    if pods.priority_class:
        spec["priorityClassName"] = pods.priority_class
    if pods.node_selector:
        spec["nodeSelector"] = dict(pods.node_selector)
    if tolerations := _tolerations(pods):
        spec["tolerations"] = tolerations
    if affinity := _affinity(pods, labels):
        spec["affinity"] = affinity
    return {"metadata": {"labels": dict(labels)} | ({"annotations": annotations} if annotations else {}), "spec": spec}


def _container(name: str, task: Task, pods: PodSettings, controller: RenderSettings) -> Manifest:
    environment = {
        "HOME": "/tmp",
        "HF_HOME": "/cache/huggingface",
        "MONTESSORI_CACHE": "/cache",
    }
    if pods.pods > 1:
        environment |= {"MONTESSORI_PODS": str(pods.pods), "MONTESSORI_RENDEZVOUS": names.rendezvous(name)}
    container: Manifest = {
        "name": names.CONTAINER,
        "image": controller.image,
        "imagePullPolicy": controller.image_pull_policy,
        "command": ["python", "-m", "stages"],
        "args": [_literal(f"{controller.store}/{task.key}")],
        "env": [{"name": key, "value": _literal(value)} for key, value in environment.items()],
        "resources": _resources(pods),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        # What a stage says before it can reach the store: a wrong key, a missing bucket.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "cache", "mountPath": "/cache"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    if controller.store_secret:
        container["envFrom"] = [{"secretRef": {"name": controller.store_secret}}]
    return container


def _literal(text: str) -> str:
    """Kubernetes replaces $(NAME) in arguments and values by the environment, store keys included; $$ is a dollar."""
    return text.replace("$", "$$")


def _resources(pods: PodSettings) -> Manifest:
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if pods.cpu:
        requests["cpu"] = pods.cpu
    for key, amount in (("memory", pods.memory), ("ephemeral-storage", pods.ephemeral_storage)):
        if amount:
            requests[key] = limits[key] = amount
    if pods.gpus:
        requests[pods.gpu_resource] = limits[pods.gpu_resource] = str(pods.gpus)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _volumes(pods: PodSettings) -> list[Manifest]:
    shm: dict[str, str] = {"medium": "Memory"} | ({"sizeLimit": pods.shm} if pods.shm else {})
    return [
        {"name": "tmp", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
        {"name": "shm", "emptyDir": shm},
    ]


def _tolerations(pods: PodSettings) -> list[Manifest]:
    found: list[Manifest] = []
    for each in pods.tolerations:
        values = each.model_dump(exclude_none=True)
        seconds = values.pop("toleration_seconds", None)
        found.append(values if seconds is None else values | {"tolerationSeconds": seconds})
    if pods.spot:
        found.extend({"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in _SPOT_TAINTS)
    return found


def _affinity(pods: PodSettings, labels: Manifest) -> Manifest:
    affinity: Manifest = {}
    if pods.spot:
        affinity["nodeAffinity"] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "preference": {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]},
                }
                for key, value in _SPOT_LABELS.items()
            ]
        }
    if pods.topology and not pods.queue:
        affinity["podAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": pods.topology, "labelSelector": {"matchLabels": dict(labels)}}
            ]
        }
    return affinity
