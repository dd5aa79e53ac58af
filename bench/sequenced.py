"""One part of bench/cluster.py: runs are created in a namespace, carried to their ends, and what was seen added up."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.standin import Stages, events
from bench.watched import Metrics, Watched
from flow.graph import Graph, build
from flow.runstate import read_resolved
from k8s import names
from k8s.client import Client, HttpTransport
from k8s.run import parse_run
from stages.contract.manifest import read_manifest
from stages.contract.store import Store

STALL_S, LOOK_S, TELL_S = 300.0, 2.0, 15.0


class Failed(Exception):
    """The measurement cannot be made, or came to nothing: the message says why."""


class JobWatch:
    """When each node's first Job was there (seconds since 1970), and the size of the largest Job in bytes."""

    def __init__(self, transport: HttpTransport, namespace: str) -> None:
        self.first: dict[tuple[str, str], float] = {}
        self.largest = 0
        self._stop = threading.Event()
        told = events(transport, f"/apis/batch/v1/namespaces/{namespace}/jobs", self._stop)
        threading.Thread(target=self._listen, args=(told,), name="jobs", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _listen(self, told: Iterator[tuple[str, Any, int]]) -> None:
        for _, job, size in told:
            labels = job["metadata"]["labels"]
            self.first.setdefault((labels[names.LABEL_RUN], labels[names.LABEL_NODE]), time.time())
            self.largest = max(self.largest, size)


def measured(name: str, namespace: str, recipes: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Carries out these runs (recipe by name) under a controller of their own; what it took, as JSON values.

    Raises:
        Failed: a run does not succeed, or nothing happens any more.
        bench.watched.Gone: the controller ended.
    """
    transport = HttpTransport()
    api = Client(transport, namespace)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Stages(transport, namespace, store)) as stages,
        closing(JobWatch(transport, namespace)) as jobs,
        closing(Watched(namespace, store.uri, Path(folder) / "log")) as controller,
    ):
        idle, _ = controller.memory_mib()
        before, began = controller.metrics(), time.monotonic()
        for run, recipe in recipes.items():
            api.create(names.PLURAL, _object(run, recipe))
        runs = _ended(name, len(recipes), api, stages, controller)
        seconds = time.monotonic() - began
        after = controller.metrics()
        _, peak = controller.memory_mib()
    graphs = {run: build(parse_run(each, store.uri).recipe) for run, each in runs.items()}
    tasks = [entry for run in runs for entry in store.list(f"runs/{run}/tasks/")]
    handovers = sorted(each for run, graph in graphs.items() for each in _handovers(store, run, graph, jobs))
    requests = after.requests() - before.requests()
    return {
        "part": name,
        "runs": len(runs),
        "nodes": sum(len(graph.nodes) for graph in graphs.values()),
        "jobs": int(after.total("montessori_jobs_created_total")),
        "pods": stages.committed,
        "late": stages.late,
        "again": len(tasks) - len({(run, node) for run, graph in graphs.items() for node in graph.nodes}),
        "seconds": round(seconds, 1),
        "handover_s": _summary(handovers),
        "memory_mib": {"idle": round(idle), "peak": round(peak)},
        "cpu_s_a_minute": round(60 * _cpu(before, after) / seconds, 2),
        "requests_a_minute": {each: round(60 * count / seconds, 1) for each, count in requests.most_common()},
        "sweep_s": _times(after, "montessori_sweep_seconds"),
        "round_s": _times(after, "montessori_round_seconds"),
        "errors": int(after.total("montessori_errors_total")),
        "bytes": {
            "run": max(len(json.dumps(each)) for each in runs.values()),
            "job": jobs.largest,
            "task": max(entry.size for entry in tasks),
        },
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The least of sorted values that this share of them does not exceed (nearest rank); nan of none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def _object(run: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": run},
        "spec": {"recipe": dict(recipe)},
    }


def _ended(name: str, count: int, api: Client, stages: Stages, controller: Watched) -> dict[str, Any]:
    """The runs, so many of them, once all have succeeded."""
    known: tuple[int, int] = (-1, -1)
    moved = told = began = time.monotonic()
    while True:
        runs = {each["metadata"]["name"]: each for each in api.list(names.PLURAL)}
        if len(runs) < count:
            raise Failed(f"{count - len(runs)} of {count} runs are gone: somebody removed them, or their namespace")
        statuses = [each.get("status", {}) for each in runs.values()]
        phases = Counter(str(each.get("phase", "")) for each in statuses)
        if phases["Succeeded"] == len(runs):
            return runs
        if phases["Failed"] or stages.fault:
            bad = next((each for each in statuses if each.get("phase") == "Failed"), {})
            raise Failed(f"a run failed: {stages.fault or json.dumps(bad)[:2000]}")
        done = sum(int(each.get("progress", "").partition("/")[0] or 0) for each in statuses)
        at = time.monotonic()
        if (done, stages.committed) != known:
            known, moved = (done, stages.committed), at
        if at - moved > STALL_S:
            raise Failed(
                f"nothing happened for {STALL_S:.0f} s, {dict(phases)}: do the simulated nodes run pods? "
                f"the controller: {controller.log(500)}"
            )
        if at - told > TELL_S:
            told = at
            memory = controller.memory_mib()[0]
            line = f"{at - began:6.0f} s  {done} nodes done, {stages.committed} shards, controller {memory:.0f} MiB"
            print(f"{name}: {line}", file=sys.stderr, flush=True)
        time.sleep(LOOK_S)


def _handovers(store: Store, run: str, graph: Graph, jobs: JobWatch) -> Iterator[float]:
    """Seconds from a node's last input to its first Job, for each that has inputs."""
    made = read_resolved(store, run)["nodes"]
    ends: dict[str, float] = {}
    for node in graph.nodes:
        manifest = read_manifest(store, made[node]["key"])
        assert manifest is not None, f"{run}: {node} is done and has no manifest"
        ends[node] = datetime.fromisoformat(manifest.finished).timestamp()
    for node in graph.nodes.values():
        if node.needs and (run, node.name) in jobs.first:
            yield jobs.first[run, node.name] - max(ends[each] for each in node.needs)


def _summary(values: Sequence[float]) -> dict[str, float]:
    figures = {f"p{share}": round(percentile(values, share / 100), 2) for share in (50, 95)}
    return figures | {"most": round(percentile(values, 1.0), 2), "count": len(values)}


def _times(metrics: Metrics, histogram: str) -> dict[str, float]:
    return {"mean": round(metrics.mean(histogram), 3), "p95_below": metrics.below(histogram, 0.95)}


def _cpu(before: Metrics, after: Metrics) -> float:
    return after.total("process_cpu_seconds_total") - before.total("process_cpu_seconds_total")
