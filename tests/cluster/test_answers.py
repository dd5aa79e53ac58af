"""Between a controller and the real API server: answers that are refusals or never come, watches that stay silent, and
a controller that is killed before and after each of its writes."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.local_controller import LocalController
from tests.cluster.machine import KUBECTL, RUN_S, await_
from tests.cluster.release import Release, undisturbed
from tests.contract.proxy import LOST, Fault, Proxy

WRITES = ("POST", "PUT", "PATCH", "DELETE")
FAILED = Fault(500, "InternalError", status_object=True)
REFUSALS = [
    Fault(409, "Conflict", status_object=True),
    Fault(410, "Expired", status_object=True),
    Fault(429, "TooManyRequests", status_object=True),
    FAILED,
    LOST,
]


@pytest.fixture
def api(release: Release, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy before the API server, whose kubeconfig is `tmp_path / "kubeconfig"`; no other controller is at work."""
    release.scale(release.controller, 0)
    plain = subprocess.Popen([*KUBECTL, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert plain.stdout is not None
        port = plain.stdout.readline().strip().rpartition(":")[2]
        with Proxy(f"http://127.0.0.1:{port}", timeout=None) as proxy:
            named = {"name": "proxy"}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "proxy",
                "clusters": [named | {"cluster": {"server": proxy.endpoint}}],
                "users": [named | {"user": {}}],
                "contexts": [named | {"context": {"cluster": "proxy", "user": "proxy"}}],
            }
            (tmp_path / "kubeconfig").write_text(json.dumps(config))
            yield proxy
    finally:
        plain.terminate()
        plain.wait(30)
        release.scale(release.controller, 1)


def begun(release: Release, tmp_path: Path) -> LocalController:
    return LocalController(release, tmp_path / "controller.log", tmp_path / "kubeconfig")


def test_watches_that_stay_silent(release: Release, api: Proxy, tmp_path: Path) -> None:
    """The proxy hands an answer on when it has all of it: of a watch nothing comes."""
    release.toy("silent-watch", times=140)
    controller = begun(release, tmp_path)
    try:
        release.ended("silent-watch")
    finally:
        controller.stop()
    assert release.digests("silent-watch") == undisturbed(tmp_path, times=140)


def test_every_third_answer_is_a_refusal_or_lost(release: Release, api: Proxy, tmp_path: Path) -> None:
    refusals = itertools.cycle(REFUSALS)
    api.decide = lambda method, headers, number: next(refusals) if number % 3 == 0 else None
    release.toy("bad-answers", shards=2, times=141, retries=0)
    controller = begun(release, tmp_path)
    try:
        release.ended("bad-answers", within=2 * RUN_S)
    finally:
        controller.stop()
    assert api.faults > 2 * len(REFUSALS)
    assert release.digests("bad-answers") == undisturbed(tmp_path, times=141)
    made_once(release, "bad-answers", "lines", "again")


def test_a_controller_that_is_killed_at_each_of_its_writes(release: Release, api: Proxy, tmp_path: Path) -> None:
    """Once before and once after each: a life ends at its first one."""
    killed: list[str] = []
    undone: set[str] = set()
    dead = threading.Event()

    def decide(method: str, headers: Any, number: int) -> Fault | None:
        path = api.path.partition("?")[0]
        if dead.is_set():
            return LOST  # of a process that is gone
        if method not in WRITES or "/leases" in path or path.endswith("/events"):
            return None
        dead.set()
        controller.kill()
        write = f"{method} {path.rpartition(release.namespace)[2]}"
        killed.append(write)
        undone.symmetric_difference_update({write})
        return FAILED if write in undone else None

    release.toy("killed-at-writes", count=36, times=142, retries=0)
    while release.phase("killed-at-writes") != "Succeeded":
        dead.clear()
        api.decide = decide
        controller = begun(release, tmp_path)
        await_(
            lambda: not controller.lives or release.phase("killed-at-writes") == "Succeeded",  # noqa: B023
            RUN_S,
            "the controller's next write",
        )
        controller.stop()
        assert len(killed) < 100, killed
    assert sum(each.startswith("POST /jobs") for each in killed) == 6, killed
    assert sum("/status" in each for each in killed) >= 2
    assert release.digests("killed-at-writes") == undisturbed(tmp_path, count=36, times=142)
    made_once(release, "killed-at-writes", "numbers", "lines", "again")


def made_once(release: Release, name: str, *nodes: str) -> None:
    """Each of these nodes had one attempt, and one Job of it."""
    for node in nodes:
        assert sum(1 for _ in release.store.list(f"runs/{name}/tasks/{node}-")) == 1, node
        assert len(release.jobs(name, node)) == 1, node
