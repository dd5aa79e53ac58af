"""What a Job's and a pod's JSON say, and what that means for a node; pure, and small enough to keep for every Job.

A Job says which indices ended well or badly, a pod why. Which shard an index is, the attempt's task says. Nothing here
knows whether a shard is published: that is the store's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flow.decide import Ended
from flow.record import silent_end
from k8s import names
from k8s.names import Reason
from stages.contract.errors import ExitCode

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_SIGNALLED = 128


@dataclass(frozen=True)
class JobView:
    """A Job, reduced to what decides.

    Attributes:
        finished: "" while it goes on, else `Complete` or `Failed`.
        reason, message: of the condition that ended it, or that suspends it.
        succeeded, failed: completion indices, as Kubernetes writes them: 0-3,7.
        active, ready: pods that run or are about to, and those of them that run.
        going: whether it is being deleted.
    """

    name: str
    uid: str
    version: str
    run: str
    node: str
    attempt: int
    owner: str
    spec_hash: str
    completions: int
    finished: str
    reason: str
    message: str
    succeeded: str
    failed: str
    active: int
    ready: int
    suspended: bool
    going: bool

    @property
    def live(self) -> bool:
        return not self.finished and not self.going

    def indices(self) -> tuple[frozenset[int], frozenset[int]]:
        """Completion indices that succeeded, and that failed for good."""
        return frozenset(ranges(self.succeeded)), frozenset(ranges(self.failed))


def job_view(job: Mapping[str, Any]) -> JobView | None:
    """Reads a Job; None for one that lacks our labels."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    labels = metadata.get("labels", {})
    attempt = labels.get(names.LABEL_ATTEMPT, "")
    if names.LABEL_RUN not in labels or names.LABEL_NODE not in labels or not attempt.isdecimal():
        return None
    conditions = {each["type"]: each for each in status.get("conditions", ()) if each.get("status") == "True"}
    finished = next((each for each in ("Complete", "Failed") if each in conditions), "")
    told = conditions.get(finished or "Suspended", {})
    owner = next((each["uid"] for each in metadata.get("ownerReferences", ()) if each.get("controller")), "")
    return JobView(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        version=metadata.get("resourceVersion", ""),
        run=labels[names.LABEL_RUN],
        node=labels[names.LABEL_NODE],
        attempt=int(attempt),
        owner=owner,
        spec_hash=metadata.get("annotations", {}).get(names.ANNOTATION_SPEC_HASH, ""),
        completions=int(spec.get("completions", 1)),
        finished=finished,
        reason=told.get("reason", ""),
        message=told.get("message", ""),
        succeeded=status.get("completedIndexes", ""),
        failed=status.get("failedIndexes", ""),
        active=int(status.get("active", 0)),
        ready=int(status.get("ready", 0)),
        suspended=bool(spec.get("suspend", False)),
        going="deletionTimestamp" in metadata,
    )


def ranges(text: str) -> Iterator[int]:
    """The numbers of `0-3,7`."""
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclass(frozen=True)
class Shards:
    """The shards of one attempt by how its Job says they are."""

    running: frozenset[int]
    succeeded: frozenset[int]


def shards_of(job: JobView, indices: Sequence[int]) -> Shards:
    """Which shards of an attempt are at work or are said to have ended well.

    Args:
        job: its Job.
        indices: the task's map from completion index to shard. The pods of a training (one shard, several
            completions) are one piece of work: it runs until its Job ends.
    """
    every = frozenset(indices)
    if job.finished:
        running: frozenset[int] = frozenset()
    else:
        running = every
    if job.completions != len(indices):
        return Shards(running, every if job.finished == "Complete" else frozenset())
    good, bad = job.indices()
    succeeded = frozenset(indices[each] for each in good if each < len(indices))
    failed = frozenset(indices[each] for each in bad if each < len(indices))
    # While the Job itself has not ended, an attempt is not over even if all of its indices are.
    left = running - succeeded - failed
    return Shards(left or (running - succeeded), succeeded)


@dataclass(frozen=True)
class PodEnd:
    """How a pod ended: its index, exit status and why."""

    index: int
    code: int
    reason: str
    disrupted: bool
    finished: str
    message: str = ""


def pod_end(pod: Mapping[str, Any]) -> PodEnd | None:
    """How a pod that failed ended; None for one that did not."""
    status = pod.get("status", {})
    if status.get("phase") != "Failed":
        return None
    ended: Mapping[str, Any] = {}
    for each in status.get("containerStatuses", ()):
        if each.get("name") == names.CONTAINER:
            ended = each.get("state", {}).get("terminated") or each.get("lastState", {}).get("terminated") or {}
    disrupted = any(
        each.get("type") == names.DISRUPTION and each.get("status") == "True" for each in status.get("conditions", ())
    )
    return PodEnd(
        index=_index(pod),
        code=int(ended.get("exitCode", 0)),
        reason=str(ended.get("reason") or status.get("reason", "")),
        disrupted=disrupted or status.get("reason") in ("Evicted", "NodeLost", "Preempting", "Shutdown"),
        finished=str(ended.get("finishedAt", "")),
        message=str(ended.get("message") or status.get("message", "")),
    )


def _index(pod: Mapping[str, Any]) -> int:
    annotations = pod["metadata"].get("annotations", {})
    text = annotations.get("batch.kubernetes.io/job-completion-index", "0")
    return int(text) if text.isdecimal() else 0


def ended_unheard(
    shard: int, attempt: int, job: JobView | None, pods: Iterable[PodEnd], heard: Ended | None = None
) -> Ended | None:
    """How an attempt at a shard ended that left no outcome, by what is left of its Job and its pods.

    None for a shard that was never begun, since the Job ended early for the others' sake.

    Args:
        shard: the logical shard.
        attempt: the attempt.
        job: the attempt's Job; None where it is gone.
        pods: the ends of the shard's pods; none where they are gone.
        heard: what is said of it, which holds unless a pod was killed for its memory.
    """
    interrupted = int(ExitCode.INTERRUPTED)
    pods = list(pods)
    if any(each.reason == "OOMKilled" for each in pods):
        return silent_end(shard, attempt, 0, out_of_memory=True)
    if heard is not None:
        return heard
    if job is None:
        return Ended(shard, attempt, interrupted, "its Job was deleted")
    if names.DISRUPTION in job.message:  # of a training over several pods: whoever was first to go ended the Job
        return Ended(shard, attempt, interrupted, f"a pod was taken away: {job.message}")
    last = max(pods, key=lambda each: each.finished, default=None)
    if last is None and job.reason == "MaxFailedIndexesExceeded":
        return None
    if last is None:
        if job.reason == "DeadlineExceeded":
            return Ended(shard, attempt, int(ExitCode.BUG), f"its Job ran too long: {job.message}")
        return Ended(shard, attempt, interrupted, f"its pod is gone; its Job {job.reason or 'ended'}: {job.message}")
    if last.disrupted:
        return Ended(shard, attempt, interrupted, f"its pod was taken away: {last.message or last.reason}")
    if last.reason == "DeadlineExceeded":
        return Ended(shard, attempt, interrupted, "its pod ran as long as max_runtime_seconds lets it")
    if last.code > _SIGNALLED:
        return silent_end(shard, attempt, last.code, signalled=last.code - _SIGNALLED)
    ended = silent_end(shard, attempt, last.code)
    said = " ".join(last.message.split())[-500:]
    return Ended(shard, attempt, ended.code, said) if said else ended


@dataclass(frozen=True)
class Obstacle:
    """Why a pod does not start."""

    job: str
    reason: Reason
    message: str


def obstacle(pod: Mapping[str, Any]) -> Obstacle | None:
    """What keeps a pending pod from starting, in the kubelet's or the scheduler's words; None if it is on its way."""
    status, metadata = pod.get("status", {}), pod["metadata"]
    job = metadata.get("labels", {}).get(names.LABEL_JOB_NAME, "")
    for each in status.get("containerStatuses", ()):
        waiting = each.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE:
            return Obstacle(job, Reason.IMAGE, f"{reason}: {message or each.get('image', '')}")
        if reason in _CONFIG:
            return Obstacle(job, Reason.CONTAINER_CONFIG, f"{reason}: {message}")
    for each in status.get("conditions", ()):
        held = each.get("type") == "PodScheduled" and each.get("status") == "False"
        if held and each.get("reason") in ("Unschedulable", "SchedulingGated"):
            return Obstacle(job, Reason.UNSCHEDULABLE, str(each.get("message", "")))
    return None


def seconds_between(first: str, last: datetime) -> float | None:
    """Seconds from an RFC 3339 time to another; None for what is no time."""
    try:
        return (last - datetime.fromisoformat(first)).total_seconds()
    except ValueError:
        return None
