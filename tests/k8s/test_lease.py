"""Who holds the Lease acts, and nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k8s.client import Client, NoAnswer
from k8s.lease import DURATION_S, MARGIN_S, Lease
from stages.contract.store import FileStore
from tests.k8s.fake import FakeCluster


class Time:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def wall(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    return FakeCluster(FileStore(tmp_path))


def lease(cluster: FakeCluster, identity: str, time: Time) -> Lease:
    client = Client(cluster, "test", patience_s=0.0, sleep=lambda seconds: None)
    return Lease(client, "controller", identity, clock=time, wall=time.wall)


def test_one_takes_it_and_the_other_waits(cluster: FakeCluster) -> None:
    time = Time()
    first, second = lease(cluster, "a", time), lease(cluster, "b", time)
    assert first.step() and not second.step()
    assert first.held and not second.held


def test_a_holder_that_renews_keeps_it(cluster: FakeCluster) -> None:
    time = Time()
    first, second = lease(cluster, "a", time), lease(cluster, "b", time)
    for _ in range(20):
        time.seconds += 4
        assert first.step() and not second.step()


def test_the_other_takes_over_once_it_was_not_renewed_for_its_duration(cluster: FakeCluster) -> None:
    time = Time()
    first, second = lease(cluster, "a", time), lease(cluster, "b", time)
    first.step()
    second.step()
    time.seconds += DURATION_S - MARGIN_S + 0.1
    assert not first.held and not second.step()  # the holder stops before another one may begin
    time.seconds += MARGIN_S
    assert second.step() and second.held
    assert not first.step()


def test_clocks_that_differ_do_not_matter(cluster: FakeCluster) -> None:
    here, there = Time(), Time()
    there.seconds += 10_000
    first, second = lease(cluster, "a", here), lease(cluster, "b", there)
    assert first.step() and not second.step()


def test_a_holder_that_cannot_reach_the_server_holds_on_until_its_time_is_over(cluster: FakeCluster) -> None:
    time = Time()
    first = lease(cluster, "a", time)
    first.step()
    cluster.fault = lambda method, path: NoAnswer("away")
    time.seconds += 5
    assert first.step()
    time.seconds += DURATION_S
    assert not first.step()


def test_two_that_take_it_in_the_same_moment_do_not_both_get_it(cluster: FakeCluster) -> None:
    time = Time()
    holder = lease(cluster, "old", time)
    holder.step()
    holder.release()
    pair = [lease(cluster, each, time) for each in "ab"]
    send = cluster.send

    def slow(method, *rest):  # type: ignore[no-untyped-def]
        answer = send(method, *rest)
        if method == "GET" and len(seen) == 0:
            seen.append(1)
            assert pair[1].step()  # between the other's reading and its writing
        return answer

    seen: list[int] = []
    cluster.send = slow  # type: ignore[method-assign]
    assert not pair[0].step()
    assert pair[1].held and not pair[0].held


def test_what_is_given_back_can_be_taken_at_once(cluster: FakeCluster) -> None:
    time = Time()
    first, second = lease(cluster, "a", time), lease(cluster, "b", time)
    first.step()
    second.step()
    first.release()
    assert not first.held and second.step()
