"""The loop with its threads: what wakes it, what it survives, and that one run does not hold another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from k8s import names
from k8s.client import NoAnswer
from k8s.controller import Controller
from k8s.one import OneRun
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore
from tests.k8s.driving import NAME, Driver, condition, make_controller, recipe, sweep, tools
from tests.k8s.fake import FakeCluster

LIMIT_S = 60.0
NEVER_S = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


@pytest.fixture
def cluster(store: FileStore) -> FakeCluster:
    return FakeCluster(store)


@contextmanager
def running(controller: Controller, cluster: FakeCluster) -> Iterator[None]:
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        yield
    finally:
        controller.stop()
        cluster.end_watches()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def until(found: Callable[[], Any]) -> None:
    end = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def done(cluster: FakeCluster, name: str = NAME) -> bool:
    cluster.work()
    return bool(cluster.run(name).get("status", {}).get("phase") == "Succeeded")


def test_a_watch_wakes_the_loop_so_that_no_sweep_is_waited_for(cluster: FakeCluster, store: FileStore) -> None:
    controller = make_controller(tools(cluster, store), interval_s=NEVER_S)
    with running(controller, cluster):
        until(lambda: controller.ready and len(cluster._watchers) == 2)
        cluster.add_run(NAME, recipe(2))
        until(lambda: done(cluster))


def test_what_is_complete_is_gone_on_from_before_its_pods_end(cluster: FakeCluster, store: FileStore) -> None:
    def succeeded() -> bool:
        cluster.compute()
        return bool(cluster.run(NAME).get("status", {}).get("phase") == "Succeeded")

    cluster.add_run(NAME, recipe(2))
    with running(make_controller(tools(cluster, store), interval_s=NEVER_S), cluster):
        until(succeeded)
    jobs = cluster.jobs()
    assert len(jobs) == 4 and not any("conditions" in job.get("status", {}) for job in jobs)
    assert not [method for method, path in cluster.seen if method == "DELETE"]


def test_a_look_at_the_store_that_a_turn_kept_waiting_comes_right_after_it(
    cluster: FakeCluster, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a second later: a result that comes during a turn would wait for the look after the next."""
    controller = make_controller(tools(cluster, store), interval_s=NEVER_S)
    turn = OneRun.turn

    def kept_waiting(one: OneRun, *arguments: Any) -> Any:
        found = turn(one, *arguments)
        cluster.compute()
        controller.peek()  # due now, while this turn goes on
        return found

    cluster.add_run(NAME, recipe())
    monkeypatch.setattr(OneRun, "turn", kept_waiting)
    sweep(controller)
    assert controller._woken == {NAME}
    monkeypatch.setattr(OneRun, "turn", turn)
    controller.step()
    controller.settle()
    assert cluster.jobs("lines") and not any("conditions" in job.get("status", {}) for job in cluster.jobs())


def test_a_watch_that_says_nothing_costs_time_and_nothing_else(cluster: FakeCluster, store: FileStore) -> None:
    cluster._tell = lambda *_: None  # type: ignore[method-assign]
    cluster.add_run(NAME, recipe(2))
    with running(make_controller(tools(cluster, store), interval_s=0.05), cluster):
        until(lambda: done(cluster))


def test_a_watch_that_ends_or_is_refused_is_begun_again(cluster: FakeCluster, store: FileStore) -> None:
    cluster.fault = lambda method, path: NoAnswer("gone") if method == "WATCH" else None
    cluster.add_run(NAME, recipe(2))
    with running(make_controller(tools(cluster, store), interval_s=0.05), cluster):
        until(lambda: done(cluster))


class SlowStore(FileStore):
    """A store that does not answer for one run until it is let go."""

    def __init__(self, root: Path, run: str) -> None:
        super().__init__(root)
        self.run, self.go = run, threading.Event()

    def get_or_none(self, key: str) -> bytes | None:
        if key.startswith(f"runs/{self.run}/"):
            self.go.wait(LIMIT_S)
        return super().get_or_none(key)


def test_a_run_whose_store_is_slow_holds_no_other_run(cluster: FakeCluster, tmp_path: Path) -> None:
    slow = SlowStore(tmp_path, "slow")
    cluster.add_run("slow", recipe(about="slow"))
    cluster.add_run(NAME, recipe())
    with running(make_controller(tools(cluster, slow), interval_s=0.05), cluster):
        until(lambda: done(cluster))
        assert "status" not in cluster.run("slow")
        slow.go.set()
        until(lambda: done(cluster, "slow"))


class AwayStore(FileStore):
    """A store that can be away."""

    away = False

    def get_or_none(self, key: str) -> bytes | None:
        if self.away:
            raise StageError("the S3 server does not answer", code=ExitCode.STORE, where=self.uri)
        return super().get_or_none(key)


def test_a_store_that_is_away_for_a_while_is_a_condition_and_the_run_goes_on_afterwards(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    away = AwayStore(tmp_path)
    cluster.add_run(NAME, recipe(2))
    driver = Driver(cluster, tools(cluster, away))
    driver.turn()
    cluster.work()
    away.away = True
    status = driver.turn()
    found = condition(status, "StoreReachable")
    assert (found["status"], found["reason"]) == ("False", "StoreDoesNotAnswer") and status["phase"] == "Running"
    assert status["nodes"]  # what was known stays
    away.away = False
    status = driver.to_the_end()
    assert status["phase"] == "Succeeded" and condition(status, "StoreReachable")["status"] == "True"


def test_a_bug_in_one_runs_round_is_told_and_hurts_no_other(
    cluster: FakeCluster, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_run("broken", recipe())
    cluster.add_run(NAME, recipe())
    used = tools(cluster, store)
    build = used.build

    def broken(found: Any) -> Any:
        if found.name == "broken":
            raise RuntimeError("no graph")
        return build(found)

    object.__setattr__(used, "build", broken)
    with running(make_controller(used, interval_s=0.05), cluster):
        until(lambda: done(cluster) and "status" in cluster.run("broken"))
    assert "no graph" in condition(cluster.run("broken")["status"], "Progressing")["message"]


def test_without_the_lease_nothing_is_done(cluster: FakeCluster, store: FileStore) -> None:
    cluster.add_run(NAME, recipe())
    leads = threading.Event()
    controller = make_controller(tools(cluster, store), interval_s=0.05, leads=leads.is_set)
    with running(controller, cluster):
        until(lambda: len(cluster._watchers) == 2)
        time.sleep(0.3)
        assert not [method for method, _ in cluster.seen if method not in ("GET", "WATCH", "POST")]
        assert not cluster.jobs() and controller.ready
        leads.set()
        until(lambda: done(cluster))


def test_many_runs_cost_few_requests_a_sweep(cluster: FakeCluster, store: FileStore) -> None:
    cluster.page = 10**6
    for number in range(20):
        cluster.add_run(f"run-{number}", recipe())
    controller = make_controller(tools(cluster, store))
    for _ in range(2):
        sweep(controller)
    cluster.seen.clear()
    sweep(controller)
    assert len(cluster.seen) <= 3, cluster.seen  # runs, Jobs, pods that do not start
    assert all(names.PLURAL in path or "/jobs" in path or "/pods" in path for _, path in cluster.seen)
