"""Looking at a run from outside: its state, its logs."""

from __future__ import annotations

import sys
import time
from typing import Any

from flow.resolve import Resolver
from flow.runstate import STALE_S, read_state, split_attempt
from flow.screen import duration
from flow.session import Session
from stages.contract.errors import bad_settings
from stages.contract.logs import log_prefix, read_log
from stages.contract.progress import ProgressRecord
from stages.contract.store import Store

_FOLLOW_S = 1.0


def status_lines(session: Session) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """A run's state for programs, and as rows (node, state, shards, time, message)."""
    resolver = Resolver(session.graph, session.store)
    resolver.look()
    state = read_state(session.store, session.graph.run)
    phase = state.phase if state else "never started"
    if state and phase == "running" and state.age_s() > STALE_S:
        phase = f"not running (last seen {duration(state.age_s())} ago on {state.host}); montessori run carries on"
    nodes: dict[str, dict[str, Any]] = {}
    for name, node in session.graph.nodes.items():
        known = dict(state.nodes.get(name, {})) if state else {}
        if name in resolver.complete:
            known["state"] = "done"
        known.setdefault("state", "waiting")
        if known["state"] == "running" and not phase.startswith("running"):
            known["state"] = "stopped"
        known["stage"] = node.stage
        known["progress"] = _progress(session.store, session.graph.run, name) if known["state"] == "running" else []
        nodes[name] = known
    done = sum(each["state"] == "done" for each in nodes.values())
    headline = f"{session.graph.run}: {phase}, {done} of {len(nodes)} nodes done"
    summary = {
        "run": session.graph.run,
        "store": session.store.uri,
        "phase": phase,
        "headline": headline,
        "nodes": nodes,
    }
    return summary, [_row(name, each) for name, each in nodes.items()]


def _row(name: str, node: dict[str, Any]) -> tuple[str, ...]:
    shards = f"{node['published']}/{node['shards']}" if node.get("shards", 1) > 1 else ""
    seconds = "cached" if node.get("cached") else duration(node.get("seconds"))
    message = node.get("message") or "; ".join(
        f"{each['phase']} {each['done']}/{each['total']} {each['unit']}" for each in node["progress"]
    )
    return name, node["state"], shards, seconds, message


def _progress(store: Store, run: str, node: str) -> list[dict[str, Any]]:
    found = []
    for key, _ in store.list(f"runs/{run}/progress/{node}/"):
        data = store.get_or_none(key)
        if data is not None:
            record = ProgressRecord.model_validate_json(data)
            if record.phase not in ("done", "failed", "interrupted"):
                found.append(record.model_dump())
    return found


def print_log(session: Session, node: str, shard: int, attempt: int | None, follow: bool, pod: int = 0) -> None:
    """Prints a shard's log, from its latest attempt unless one is named; `follow` goes on until the run ends.

    `pod` is the place of one of several that work on the shard together.
    """
    session.graph.node(node)
    run = session.graph.run
    numbers = _attempts(session.store, run, node)
    if not numbers:
        raise bad_settings(f"{node} has no log yet", where=run, hint="it was cached, or has not started")
    number = attempt if attempt is not None else numbers[-1]
    if number not in numbers:
        raise bad_settings(f"{node} has no attempt {number}", where=run, hint=f"it has {numbers}")
    prefix = log_prefix(run, node, number, shard, pod)
    shown = ""
    if not any(True for _ in session.store.list(prefix)):
        missing = f"pod {pod} of shard {shard}" if pod else f"shard {shard}"
        raise bad_settings(f"attempt {number} of {node} has no {missing}", where=run, hint="--shard, --pod, --attempt")
    while True:
        text = read_log(session.store, prefix)
        sys.stdout.write(text[len(shown) :])
        sys.stdout.flush()
        shown = text
        state = read_state(session.store, run)
        if not follow or state is None or state.phase != "running":
            return
        time.sleep(_FOLLOW_S)


def _attempts(store: Store, run: str, node: str) -> list[int]:
    folder = f"runs/{run}/logs/"
    names = {key.removeprefix(folder).partition("/")[0] for key, _ in store.list(f"{folder}{node}-")}
    return sorted(each[1] for each in map(split_attempt, names) if each and each[0] == node)
