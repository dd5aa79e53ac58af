"""Every name that the cluster sees, in one place: the API group, labels, annotations, condition types, event reasons.

Job and Service share one name, `RUN-NODE-HASH`: it says what a pod is to whoever reads `kubectl get pods`, and it is
another one for another spec, so that "create if absent" is idempotent. Names are for people: code finds Jobs by label.
"""

from __future__ import annotations

from enum import StrEnum

from stages.contract.canonical import digest

GROUP = "montessori.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TailoringRun"
PLURAL = "tailoringruns"
SINGULAR = "tailoringrun"
SHORT = "trun"

MANAGED_BY = "montessori"  # value of LABEL_MANAGED_BY; what the controller lists Jobs by
CONTAINER = "stage"  # the one container of a stage's pod

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = f"{LABEL_MANAGED_BY}={MANAGED_BY}"  # selects them
LABEL_RUN = f"{GROUP}/run"
LABEL_NODE = f"{GROUP}/node"  # as the graph names it: it1.influence
LABEL_ATTEMPT = f"{GROUP}/attempt"  # counted from 1; the task is runs/RUN/tasks/NODE-ATTEMPT.json
ANNOTATION_SPEC_HASH = f"{GROUP}/spec-hash"  # a Job with this name and another hash is not ours to adopt
ANNOTATION_SHARDS = f"{GROUP}/shards"  # a Job's shards by completion index: 0-63, or 3,7; none if long

# Kubernetes' own and Kueue's
LABEL_JOB_NAME = "batch.kubernetes.io/job-name"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
ANNOTATION_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"
DISRUPTION = "DisruptionTarget"  # condition of a pod that is evicted, preempted, drained or lost with its node

HASH_LENGTH = 10
# A pod's host name is JOB-INDEX and a DNS label (63 characters); a Job has at most 100,000 indices (5 digits).
LONGEST_JOB_NAME = 63 - len("-99999")

RENDEZVOUS_PORT = 29500  # where pod 0 of a training over several pods listens


class Phase(StrEnum):
    """`status.phase` of a run."""

    PENDING = "Pending"  # seen, nothing started yet
    RUNNING = "Running"
    SUSPENDED = "Suspended"  # every Job that is under way waits for its queue's quota
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"  # spec.cancel is true and no Job is left

    @property
    def over(self) -> bool:
        """Whether nothing happens any more until the spec changes."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class Condition(StrEnum):
    """Types in `status.conditions`."""

    VALID = "Valid"  # False: the recipe is refused, the message says why; nothing runs
    PROGRESSING = "Progressing"  # False: something is in the way that time alone may not solve
    STORE = "StoreReachable"  # False: the store did not answer the controller
    COMPLETE = "Complete"  # True: every node is done


class Reason(StrEnum):
    """Why a condition is as it is, and what an Event reports: one word for programs, a message beside it for people."""

    # Valid
    ACCEPTED = "Accepted"  # the recipe is valid
    INVALID = "Invalid"  # it is not; the message names every mistake
    # Progressing
    WORKING = "Working"  # Jobs run, or are about to
    QUEUED = "Queued"  # Kueue holds the Job back
    UNSCHEDULABLE = "Unschedulable"  # no node fits a pod: the scheduler's own words follow
    IMAGE = "ImageNotPulled"  # the stage image cannot be pulled
    CONTAINER_CONFIG = "ContainerConfigError"  # a Secret that pods need is missing, or a key of it
    REFUSED = "JobRefused"  # the API server refuses the Job: quota, admission, an invalid field
    API = "ApiServerError"  # the API server does not answer the controller, or forbids it something
    BUG = "ControllerError"  # a bug: the controller's log has its traceback; it tries again
    RETRYING = "Retrying"  # shards failed and run again
    # Complete, Progressing once the run is over
    SUCCEEDED = "Succeeded"  # every node is done
    NODE_FAILED = "NodeFailed"  # a node cannot be completed
    GATE = "GateNotMet"  # a data gate stopped the run; everything is kept
    CANCELLED = "Cancelled"  # spec.cancel
    # StoreReachable
    ANSWERS = "StoreAnswers"
    NO_ANSWER = "StoreDoesNotAnswer"  # work in pods goes on; the controller tries again
    # Events besides
    NODE_STARTED = "NodeStarted"  # a Job was created
    NODE_DONE = "NodeDone"
    RERUN = "Rerun"  # a request of spec.rerun was carried out


def job_name(run: str, node: str, spec_hash: str) -> str:
    """`RUN-NODE-HASH`, a DNS label that starts with a letter (a Service needs that) and leaves room for an index.

    A name that is too long loses the end of the run's part: node and hash stay whole.
    """
    tail = f"-{node.replace('.', '-')}-{spec_hash[:HASH_LENGTH]}"
    head = run if run[:1].isalpha() else f"run-{run}"
    return head[: LONGEST_JOB_NAME - len(tail)].rstrip("-") + tail


def spec_hash(manifest: object) -> str:
    """The first hex digits of the digest of a manifest that has no name and no hash yet."""
    return digest(manifest)[:HASH_LENGTH]


def rendezvous(name: str) -> str:
    """Where the pods of a training find pod 0: `JOB-0.SERVICE:PORT`, Job and Service having one name."""
    return f"{name}-0.{name}:{RENDEZVOUS_PORT}"


def labels(run: str, node: str, attempt: int) -> dict[str, str]:
    """What Jobs, Services and pods of an attempt carry."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_RUN: run, LABEL_NODE: node, LABEL_ATTEMPT: str(attempt)}
