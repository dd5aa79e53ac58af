"""A run on an S3 server that goes away in the middle."""

from __future__ import annotations

import threading
import time

import pytest

from tests.contract.conftest import use_server
from tests.contract.servers import Server
from tests.flow.test_local import DOUBLED, await_, doubled, run, toy_graph

AWAY_S = 20.0


def test_a_server_that_is_away_for_20_seconds_costs_a_run_time_and_nothing_else(
    seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = use_server(monkeypatch, seaweedfs_server.endpoint)
    came_back: list[float] = []

    def go_away() -> None:
        await_(lambda: any("chunk-" in key for key, _ in store.list("artifacts/")))
        seaweedfs_server.stop()
        time.sleep(AWAY_S)
        seaweedfs_server.start()
        came_back.append(time.monotonic())

    outage = threading.Thread(target=go_away)
    outage.start()
    decision, local = run(store, toy_graph(shards=2, pause_s=0.8), retries=0)
    outage.join()
    assert decision.exit_code == 0 and time.monotonic() > came_back[0]
    assert doubled(store) == DOUBLED
    assert local.times["lines"].seconds is not None and local.times["lines"].seconds > AWAY_S
    # Every task was written once: nothing was started a second time.
    assert len(list(store.list("runs/toy/tasks/"))) == 2
