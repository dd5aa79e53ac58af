"""What a person sees of a run on a cluster: its status as lines, what happens to it, what its pods print."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

from k8s import access, names
from k8s.client import Absent, ApiError, Client, NoAnswer, Object
from k8s.names import Condition, Phase, Reason
from k8s.observe import ranges
from stages.contract.errors import ExitCode, bad_settings

_USUAL = (Reason.ACCEPTED, Reason.WORKING, Reason.ANSWERS, Reason.SUCCEEDED, Reason.CANCELLED)

COLUMNS = ("node", "state", "shards", "attempts", "message")
_CODE = re.compile(r"exit code (\d+)")


def headline(run: Object) -> str:
    status = access.status_of(run)
    phase = status.get("phase") or "not seen by a controller yet"
    return (
        f"{run['metadata']['name']}: {phase}, {status.get('progress') or '0'} nodes done, store {status.get('store')}"
    )


def rows(run: Object) -> list[tuple[str, ...]]:
    return [
        (
            each["name"],
            each["state"],
            each.get("shards", ""),
            str(each.get("attempts") or ""),
            each.get("message", ""),
        )
        for each in access.status_of(run).get("nodes", ())
    ]


def troubles(run: Object) -> Iterator[str]:
    """A line for each condition that is not as it should be."""
    told = access.status_of(run).get("conditions", ())
    unusual = [each for each in told if each["reason"] not in _USUAL and each["type"] != Condition.COMPLETE]
    yield from dict.fromkeys(f"{each['reason']}: {each['message']}" for each in unusual)


def watch(client: Client, name: str) -> int:
    """Prints each change until the run is over; returns its exit code."""
    nodes: dict[str, str] = {}
    told: set[str] = set()
    for run in access.changes(client, name):
        status = access.status_of(run)
        for each in status.get("nodes", ()):
            state = each["state"] + (f" {each['shards']}" if each["state"] == "running" and each.get("shards") else "")
            if nodes.get(each["name"]) != state and each["state"] not in ("waiting", "ready", "blocked"):
                print(f"{each['name']}: {state}", flush=True)
            nodes[each["name"]] = state
        now = set(troubles(run))
        for line in sorted(now - told):
            print(line, flush=True)
        told = now
        phase = status.get("phase")
        if phase in set(Phase) and Phase(phase).over and status.get("observedGeneration") == _generation(run):
            print(headline(run))
            return _exit_code(Phase(phase), now)
    print(f"{name} was deleted")
    return int(ExitCode.INTERRUPTED)


def place(namespace: str, run: str | None, store: str | None) -> tuple[str, str]:
    """A run's name and the store that it is in."""
    client = access.connect(namespace)
    found = access.find(client, run)
    uri = store or access.status_of(found).get("store")
    if not uri:
        raise bad_settings(
            "no controller has seen this run yet", where=found["metadata"]["name"], hint="kubectl get trun"
        )
    return str(found["metadata"]["name"]), str(uri)


def print_log(
    client: Client,
    node: str,
    run: str | None,
    store: str | None,
    shard: int,
    attempt: int | None,
    follow: bool,
    place: int = 0,
) -> None:
    """Prints a shard's log: of its pod while that is there, else out of the store.

    `place` is that of one of several pods that work on the shard together.
    """
    found = access.find(client, run)
    name, status = str(found["metadata"]["name"]), access.status_of(found)
    known = {each["name"]: each for each in status.get("nodes", ())}
    if known and node not in known:
        raise bad_settings(f"the run has no node {node!r}", where=name, hint=f"it has {', '.join(known)}")
    number = attempt or int(known.get(node, {}).get("attempts") or 0)
    pod = _pod_of(client, name, node, number, shard, place)
    if pod is not None:
        try:
            if follow:
                for data in client.follow_log(pod):
                    sys.stdout.write(data.decode("utf-8", "replace") + "\n")
                    sys.stdout.flush()
            else:
                sys.stdout.write(client.log(pod))
            return
        except (Absent, NoAnswer):
            pass  # it was removed meanwhile
        except ApiError as error:
            if error.status != 400:  # 400: its container has not started
                raise bad_settings(error.message, where=pod) from None
            raise bad_settings("the pod has not started yet", where=pod, hint="montessori status says why") from None
    uri = store or status.get("store")
    if not uri:
        raise bad_settings(f"{node} has no pod yet", where=name, hint=f"montessori status {name} -n {client.namespace}")
    from flow.inspect import print_log as print_from_store
    from flow.session import find_run

    print_from_store(find_run(name, str(uri)), node, shard, attempt, follow, place)


def _pod_of(client: Client, run: str, node: str, attempt: int, shard: int, place: int) -> str | None:
    """The latest pod that worked on a shard in an attempt, by its Job's map from index to shard."""
    labels = f"{names.LABEL_RUN}={run},{names.LABEL_NODE}={node},{names.LABEL_ATTEMPT}={attempt}"
    jobs: list[Object] = list(access.asked(lambda: client.list("jobs", labels=labels)))
    if not jobs:
        return None
    told = jobs[-1]["metadata"].get("annotations", {}).get(names.ANNOTATION_SHARDS)
    if told is None:  # too long a map for a Job: the store has the log under the shard's own number
        return None
    shards = list(ranges(told))
    if shard not in shards:
        raise bad_settings(
            f"attempt {attempt} of {node} has no shard {shard}",
            where=run,
            hint=f"it has {told}; --attempt names another",
        )
    gang = int(jobs[-1]["spec"]["completions"]) != len(shards)
    if place and not gang:
        return None
    index = place if gang else shards.index(shard)
    of_shard = [each for each in access.pods(client, run, node, attempt) if access.index_of(each) == index]
    return str(of_shard[-1]["metadata"]["name"]) if of_shard else None


def _generation(run: Object) -> Any:
    return run["metadata"].get("generation")


def _exit_code(phase: Phase, lines: set[str]) -> int:
    if phase is Phase.SUCCEEDED:
        return 0
    if phase is Phase.CANCELLED:
        return int(ExitCode.INTERRUPTED)
    found = next((match for line in sorted(lines) if (match := _CODE.search(line))), None)
    return int(found[1]) if found else int(ExitCode.BAD_SETTINGS)
