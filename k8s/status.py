"""`status` of a TailoringRun and the Events beside it, out of what a round has seen. Pure: writing is the caller's.

A status is made anew each round and written only where it differs; Events tell what changed between two of them, and
are sent after the write. So an Event may be lost with a controller, and is never sent for what was not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flow.decide import Decision, State
from k8s.names import Condition, Phase, Reason
from k8s.observe import JobView, Obstacle
from stages.contract.errors import ExitCode

LONGEST_MESSAGE = 1024  # a condition's may have 32 KiB; a list of nodes is for people
_OPEN = (State.RUNNING, State.SUSPENDED, State.READY)
_SAID_BY_VALID = (Condition.PROGRESSING, Reason.INVALID)

Status = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What one round saw and did.

    Attributes:
        decision: every node's state, and failures.
        shards: published and all shards by node; (0, 0) where that is not known yet.
        attempts: the latest attempt by node.
        jobs: the Job that works on a node, where one does.
        started: nodes whose Job was created in this round.
        obstacles: why a node's pods or its Job do not start.
        failed: how many attempts at shards failed since the spec changed, by node.
        requests: ids of the requests that are done.
        notices: what else there is to tell, as (reason, message).
    """

    decision: Decision
    shards: Mapping[str, tuple[int, int]]
    attempts: Mapping[str, int]
    jobs: Mapping[str, JobView] = field(default_factory=dict)
    started: frozenset[str] = frozenset()
    obstacles: Mapping[str, Obstacle] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    requests: tuple[str, ...] = ()
    notices: tuple[tuple[Reason, str], ...] = ()

    def state(self, name: str) -> State:
        return State.RUNNING if name in self.started else self.decision.states[name]

    def working(self) -> Iterator[str]:
        """Nodes whose Job is at work."""
        return (name for name in self.decision.states if self.state(name) is State.RUNNING)


@dataclass(frozen=True)
class Event:
    """What an Event on a run says."""

    reason: Reason
    message: str
    warning: bool = False


def of_round(previous: Status, generation: int, store: str, seen: Seen, now: datetime) -> Status:
    """The status after a round that reached the store."""
    phase = _phase(seen)
    open_nodes = [name for name in seen.decision.states if seen.state(name) in _OPEN]
    done = sum(state is State.DONE for state in seen.decision.states.values())
    status: Status = {
        "phase": str(phase),
        "node": "" if phase.over else _few(open_nodes),
        "progress": f"{done}/{len(seen.decision.states)}",
        "store": store,
        "observedGeneration": generation,
        "rerun": list(seen.requests),
        "nodes": [_line(name, seen) for name in seen.decision.states],
    }
    told = {
        Condition.VALID: (True, Reason.ACCEPTED, "the recipe is valid"),
        Condition.STORE: (True, Reason.ANSWERS, f"{store} answers"),
        Condition.PROGRESSING: _progressing(seen, phase),
        Condition.COMPLETE: _complete(seen, phase),
    }
    return status | {"conditions": _conditions(previous, generation, told, now)}


def invalid(
    previous: Status, generation: int, store: str, message: str, now: datetime, *, final: bool = True
) -> Status:
    """The status of a run whose recipe is refused; not `final` where what it names may yet come to be."""
    told = {Condition.VALID: (False, Reason.INVALID, message)}
    phase = Phase.FAILED if final else _kept_phase(previous)
    fresh: Status = {"phase": str(phase), "observedGeneration": generation, "store": store}
    if final:
        told |= {kind: (False, Reason.INVALID, message) for kind in (Condition.PROGRESSING, Condition.COMPLETE)}
        fresh |= {"node": "", "nodes": _stopped(previous)} if previous.get("nodes") else {}
    return _basis(previous) | fresh | {"conditions": _conditions(previous, generation, told, now)}


def troubled(
    previous: Status, generation: int, store: str, kind: Condition, reason: Reason, message: str, now: datetime
) -> Status:
    """The status after a round that could not be ended: all that was known stays, with one condition False."""
    fresh = {"phase": str(_kept_phase(previous)), "store": store}
    return (
        _basis(previous)
        | fresh
        | {"conditions": _conditions(previous, generation, {kind: (False, reason, message)}, now)}
    )


def cancelled(previous: Status, generation: int, store: str, left: int, now: datetime) -> Status:
    """The status of a run that shall stop, `left` of its Jobs not having ended yet."""
    phase = _kept_phase(previous) if left else Phase.CANCELLED
    message = f"{left} Jobs are being stopped" if left else "it was asked to stop; what is committed stays"
    told = {
        Condition.PROGRESSING: (False, Reason.CANCELLED, message),
        Condition.COMPLETE: (False, Reason.CANCELLED, message),
    }
    fresh: Status = {"phase": str(phase), "observedGeneration": generation, "store": store}
    fresh |= {} if left else {"node": "", "nodes": _stopped(previous)}
    return _basis(previous) | fresh | {"conditions": _conditions(previous, generation, told, now)}


def _stopped(previous: Status) -> list[Status]:
    """The nodes' lines once their Jobs are stopped."""
    stopped = {"state": str(State.STOPPED)}
    return [each | (stopped if each["state"] in _OPEN else {}) for each in previous.get("nodes", ())]


def over(status: Mapping[str, Any], generation: int) -> bool:
    """Whether nothing happens to a run any more until its spec changes."""
    phase = status.get("phase")
    return phase in set(Phase) and Phase(phase).over and status.get("observedGeneration") == generation


def events(previous: Status, current: Status, seen: Seen | None = None) -> Iterator[Event]:
    """What changed from one status to the next."""
    before = {each["name"]: each["state"] for each in previous.get("nodes", ())}
    for each in current.get("nodes", ()) if seen else ():
        name, state = each["name"], each["state"]
        if seen and name in seen.started:
            yield Event(
                Reason.NODE_STARTED, f"{name}: attempt {each['attempts']}, {each['shards']} shards are published"
            )
        elif state == State.DONE and before.get(name, "") in _OPEN:
            yield Event(Reason.NODE_DONE, f"{name} is done, {current['progress']} nodes are")
    for reason, message in seen.notices if seen else ():
        yield Event(reason, message)
    known = {each["type"]: each for each in previous.get("conditions", ())}
    for each in current.get("conditions", ()):
        old = known.get(each["type"], {})
        good = each["reason"] in (Reason.WORKING, Reason.ACCEPTED, Reason.ANSWERS)
        said = each["type"] == Condition.COMPLETE or (each["type"], each["reason"]) == _SAID_BY_VALID
        if said or each["reason"] == old.get("reason") or (good and not old):
            continue  # another condition says the same; what is as it should be is no news
        warning = each["status"] == "False" and each["reason"] not in (Reason.SUCCEEDED, Reason.CANCELLED)
        yield Event(Reason(each["reason"]), each["message"], warning)


def _phase(seen: Seen) -> Phase:
    if seen.decision.ended:
        return Phase.FAILED if seen.decision.failures else Phase.SUCCEEDED
    states = [seen.state(name) for name in seen.decision.states]
    if State.RUNNING in states:
        return Phase.RUNNING
    if State.SUSPENDED in states:
        return Phase.SUSPENDED
    return Phase.RUNNING if State.DONE in states else Phase.PENDING


def _kept_phase(previous: Status) -> Phase:
    known = previous.get("phase")
    phase = Phase(known) if known in set(Phase) else Phase.PENDING
    return Phase.PENDING if phase.over else phase


def _line(name: str, seen: Seen) -> Status:
    published, shards = seen.shards.get(name, (0, 0))
    state = seen.state(name)
    line: Status = {"name": name, "state": str(state), "attempts": seen.attempts.get(name, 0)}
    line["shards"] = f"{published}/{shards}" if shards and state is not State.DONE else ""
    line["message"] = _short(_message(name, seen))
    return line


def _message(name: str, seen: Seen) -> str:
    failures = [each for each in seen.decision.failures if each.node == name]
    if failures:
        first = failures[0]
        more = f" (and {len(failures) - 1} more shards)" if len(failures) > 1 else ""
        return f"shard {first.shard}, exit code {first.code}: {first.message}{more}"
    if name in seen.obstacles:
        return f"{seen.obstacles[name].reason}: {seen.obstacles[name].message}"
    if seen.decision.states[name] is State.SUSPENDED:
        return seen.jobs[name].message or "its queue has no quota for it yet"
    if seen.failed.get(name) and seen.state(name) in _OPEN:
        return f"{seen.failed[name]} attempts at shards failed and run again"
    return ""


def _progressing(seen: Seen, phase: Phase) -> tuple[bool, Reason, str]:
    if phase is Phase.SUCCEEDED:
        return False, Reason.SUCCEEDED, "every node is done"
    if phase is Phase.FAILED:
        return False, *_failure(seen)
    for name, each in seen.obstacles.items():
        return False, each.reason, f"{name}: {each.message}"
    waiting = [name for name in seen.decision.states if seen.state(name) is State.SUSPENDED]
    if phase is Phase.SUSPENDED:
        return True, Reason.QUEUED, f"{_few(waiting)}: {_message(waiting[0], seen)}"
    retried = [name for name in seen.failed if seen.failed[name] and seen.state(name) in _OPEN]
    if retried:
        return True, Reason.RETRYING, f"{_few(retried)}: shards failed and run again"
    return True, Reason.WORKING, "Jobs run, or are about to"


def _complete(seen: Seen, phase: Phase) -> tuple[bool, Reason, str]:
    if phase is Phase.SUCCEEDED:
        return True, Reason.SUCCEEDED, "every node is done"
    if phase is Phase.FAILED:
        return False, *_failure(seen)
    return False, Reason.WORKING, "not every node is done yet"


def _failure(seen: Seen) -> tuple[Reason, str]:
    first = seen.decision.failures[0]
    reason = Reason.GATE if first.code == ExitCode.GATE else Reason.NODE_FAILED
    return reason, f"{first.node}, exit code {first.code}: {first.message}"


def _conditions(
    previous: Status, generation: int, told: Mapping[Condition, tuple[bool, Reason, str]], now: datetime
) -> list[Status]:
    """The conditions with what is told of them anew; a time changes only where the status does."""
    known = {each["type"]: each for each in previous.get("conditions", ())}
    for kind, (good, reason, message) in told.items():
        value, old = "True" if good else "False", known.get(str(kind), {})
        since = old["lastTransitionTime"] if old.get("status") == value else now.strftime("%Y-%m-%dT%H:%M:%SZ")
        known[str(kind)] = {
            "type": str(kind),
            "status": value,
            "reason": str(reason),
            "message": _short(message),
            "lastTransitionTime": since,
            "observedGeneration": generation,
        }
    return [known[str(kind)] for kind in Condition if str(kind) in known]


def _basis(previous: Status) -> Status:
    return {"node": "", "progress": "", "rerun": [], "nodes": []} | previous


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
