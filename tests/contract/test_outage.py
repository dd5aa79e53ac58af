"""A server that goes away or flaps costs time and nothing else."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.task import write_task
from tests.contract.builders import lines, lines_task, products, undisturbed
from tests.contract.proxy import ELSEWHERE, LOST, Fault, Proxy
from tests.contract.servers import Server
from tests.support import start_stage

AWAY_S = 20.0
FLAPS = [Fault(500, "InternalError"), Fault(503, "ServiceUnavailable"), Fault(503, "SlowDown"), LOST]


def test_a_server_that_is_away_for_20_seconds_is_waited_for(
    seaweedfs_server: Server, s3_store: Store, tmp_path: Path
) -> None:
    task = lines_task(s3_store, 40, times=3, pause_s=0.2)  # 2 s of work
    process = start_stage(write_task(s3_store, task))
    while not s3_store.get_or_none(f"{task.output}/shard-00000/chunk-00001.json"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    seaweedfs_server.stop()
    time.sleep(AWAY_S)
    assert process.poll() is None
    seaweedfs_server.start()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert [errors.count(f"chunk {number} of") for number in range(10)] == [1] * 10
    artifact = Artifact(s3_store, task.output)
    assert artifact.table().to_pylist() == products(40, 3)
    assert artifact.manifest.digest == undisturbed(tmp_path, 40, times=3)


def test_an_artifact_comes_out_whole_from_behind_a_flapping_server(proxy: Proxy, proxied_store: Store) -> None:
    flaps = itertools.cycle(FLAPS)
    proxy.decide = lambda method, headers, number: next(flaps) if number % 3 == 0 else None
    assert lines(proxied_store, 24, shards=2).table().to_pylist() == products(24)
    assert proxy.faults > 10


def test_a_lost_answer_to_a_conditional_put_still_means_that_we_were_first(proxy: Proxy, proxied_store: Store) -> None:
    proxy.decide = lambda method, headers, number: LOST if "If-None-Match" in headers and number == 1 else None
    assert proxied_store.put_if_absent("m", b"ours") is True
    assert proxy.faults == 1 and proxy.requests > 1
    proxy.decide = lambda method, headers, number: LOST if proxy.faults == 1 else None
    assert proxied_store.put_if_absent("m", b"theirs") is False
    assert proxy.faults == 2


@pytest.mark.parametrize("fault", FLAPS, ids=lambda fault: fault.code if not fault.lost else "lost")
def test_racers_behind_a_flapping_server_have_one_winner(fault: Fault, proxy: Proxy, proxied_store: Store) -> None:
    proxy.decide = lambda method, headers, number: fault if number % 2 else None
    won: list[int] = []

    def write(number: int) -> None:
        if proxied_store.put_if_absent("race", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    proxy.decide = lambda *_: None
    assert proxied_store.get("race") == str(won[0]).encode()


READS = {
    "get": lambda store, path: store.get_or_none("a"),
    "get_file": lambda store, path: store.get_file("a", path),
    "size": lambda store, path: store.size("a"),
    "list": lambda store, path: list(store.list("")),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_connection_that_leads_elsewhere_says_nothing_about_an_object(
    read: Callable[[Store, Path], object], proxy: Proxy, proxied_store: Store, tmp_path: Path
) -> None:
    """A gateway took the connection while the server was away, and answers 404 to whatever is asked of it."""
    proxied_store.put("a", b"1")
    told = read(proxied_store, tmp_path / "before")
    reached = proxy.requests
    proxy.decide = lambda method, headers, number: ELSEWHERE if number == reached + 1 else None
    assert read(proxied_store, tmp_path / "after") == told
    assert proxy.faults > 0


def test_nothing_but_such_answers_is_no_missing_object(proxy: Proxy, proxied_store: Store) -> None:
    proxy.decide = lambda method, headers, number: ELSEWHERE
    with pytest.raises(StageError, match="something else does: 404") as caught:
        proxied_store.hasty().get_or_none("a")
    assert caught.value.code is ExitCode.STORE
