"""What the controller counts, for Prometheus; the dashboard in the chart is drawn from these names."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from flow.decide import State
from k8s.names import Phase

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """The controller's metrics, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.leading = Gauge("montessori_leading", "1 while this controller holds the Lease", registry=registry)
        self.runs = Gauge("montessori_runs", "runs by phase", ["phase"], registry=registry)
        self.nodes = Gauge("montessori_nodes", "nodes of unfinished runs, by state", ["state"], registry=registry)
        self.rounds = Histogram(
            "montessori_round_seconds", "looking at one run once", buckets=_SECONDS, registry=registry
        )
        self.sweeps = Histogram(
            "montessori_sweep_seconds", "listing every run and every Job", buckets=_SECONDS, registry=registry
        )
        self.handovers = Histogram(
            "montessori_handover_seconds",
            "from a node's last input to its first Job",
            buckets=_SECONDS,
            registry=registry,
        )
        self.jobs = Counter("montessori_jobs_created", "Jobs created, by stage", ["stage"], registry=registry)
        self.failed = Counter(
            "montessori_shard_failures", "attempts at shards that failed, by exit code", ["code"], registry=registry
        )
        self.requests = Counter(
            "montessori_api_requests",
            "requests to the Kubernetes API; code 0: no answer",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.errors = Counter(
            "montessori_errors",
            "rounds that could not be ended, by what was in the way: store, api, settings, bug",
            ["kind"],
            registry=registry,
        )
        self.watches = Counter(
            "montessori_watch_restarts", "watches that ended and were begun again", ["resource"], registry=registry
        )

    def job_created(self, node: str, stage: str) -> None:
        self.jobs.labels(stage).inc()

    def handed_over(self, seconds: float) -> None:
        self.handovers.observe(max(0.0, seconds))

    def shard_failed(self, code: int) -> None:
        self.failed.labels(str(code)).inc()

    def request(self, verb: str, resource: str, status: int) -> None:
        self.requests.labels(verb, resource, str(status)).inc()

    def count_runs(self, statuses: Iterable[Mapping[str, Any]]) -> None:
        """Sets the gauges from the statuses of all runs."""
        phases: Tally[str] = Tally()
        states: Tally[str] = Tally()
        for status in statuses:
            phase = str(status.get("phase") or Phase.PENDING)
            phases[phase] += 1
            if phase in (Phase.PENDING, Phase.RUNNING, Phase.SUSPENDED):
                states.update(str(each.get("state")) for each in status.get("nodes", ()))
        for each in Phase:
            self.runs.labels(str(each)).set(phases[each])
        for state in State:
            self.nodes.labels(str(state)).set(states[state])


def serve(port: int, metrics: Metrics, alive: Callable[[], bool], ready: Callable[[], bool]) -> ThreadingHTTPServer:
    """Serves /metrics, /healthz and /readyz from a thread; `shutdown()` ends it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            elif self.path in ("/healthz", "/readyz"):
                good = (alive if self.path == "/healthz" else ready)()
                self._answer(200 if good else 503, b"ok\n" if good else b"not ok\n", "text/plain")
            else:
                self._answer(404, b"there is /metrics, /healthz and /readyz\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape is not worth a line."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
