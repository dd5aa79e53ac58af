"""The controller dies at every request to the store and to the API in turn; the next one ends the run all the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s import names
from k8s.client import Answer, NoAnswer
from stages.contract.store import FileStore, Store
from stages.contract.task import Task
from tests.k8s.driving import NAME, ROUNDS, Driver, digests, make_controller, manifests, recipe, sweep, tools
from tests.k8s.fake import Dies, FakeCluster, refusal

SHARDS = 2


class Killed(BaseException):
    """The process is gone: no handler of the controller may catch it."""


class DeadlyStore(FileStore):
    """A store at whose request number `at` the process dies, before or after the request was carried out."""

    def __init__(self, root: Path, at: int, after: bool) -> None:
        super().__init__(root)
        self.count, self.at, self.after = 0, at, after

    def deadly(self, request: Callable[[], Any]) -> Any:
        self.count += 1
        if self.count == self.at and not self.after:
            raise Killed
        answer = request()
        if self.count == self.at:
            raise Killed
        return answer

    def get_or_none(self, key: str) -> bytes | None:
        found: bytes | None = self.deadly(lambda: super(DeadlyStore, self).get_or_none(key))
        return found

    def put(self, key: str, data: bytes) -> None:
        self.deadly(lambda: super(DeadlyStore, self).put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self.deadly(lambda: super(DeadlyStore, self).put_if_absent(key, data)))

    def size(self, key: str) -> int | None:
        found: int | None = self.deadly(lambda: super(DeadlyStore, self).size(key))
        return found

    def list(self, prefix: str) -> Iterator[Any]:
        return iter(self.deadly(lambda: list(super(DeadlyStore, self).list(prefix))))

    def delete(self, keys: Any) -> None:
        self.deadly(lambda: super(DeadlyStore, self).delete(list(keys)))


def one_shard_fails_once(task: Task, shard: int) -> Dies | None:
    return Dies(137, "OOMKilled") if (task.node, shard, task.attempt) == ("lines", 1, 1) else None


def drive(cluster: FakeCluster, plain: Store, used: Store) -> tuple[Driver, bool]:
    """Runs to the end with the deadly store until it has killed, then with the plain one; says whether it killed."""
    driver, killed = Driver(cluster, tools(cluster, used)), False
    for _ in range(ROUNDS):
        try:
            status = driver.turn()
        except Killed:
            killed = True
            driver = Driver(cluster, tools(cluster, plain))
            continue
        if status["phase"] == "Succeeded":
            return driver, killed
        assert status["phase"] != "Failed", status
        cluster.work(one_shard_fails_once)
    raise AssertionError("the run does not end")


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred and more runs: what matters is the order of requests, not the disk's."""
    monkeypatch.setattr("os.fsync", lambda number: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], int, int]:
    """The digests of a run that nothing disturbs, and its controller's requests to the store and to the API."""
    folder = tmp_path_factory.mktemp("undisturbed")
    counting, plain = DeadlyStore(folder, 0, False), FileStore(folder)
    cluster = FakeCluster(plain)
    cluster.add_run(NAME, recipe(SHARDS))
    drive(cluster, plain, counting)
    return digests(plain), counting.count, len(cluster.seen)


def published_once(store: Store, cluster: FakeCluster) -> None:
    """Nothing was published twice, and no attempt was started twice."""
    assert len(manifests(store)) == 4
    attempts = [
        (job["metadata"]["labels"][names.LABEL_NODE], job["metadata"]["labels"][names.LABEL_ATTEMPT])
        for job in cluster.jobs()
    ]
    assert len(attempts) == len(set(attempts))
    assert sorted(attempts) == [("again", "1"), ("lines", "1"), ("lines", "2"), ("numbers", "1"), ("word", "1")]


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_killed_at_every_request_to_the_store(
    undisturbed: tuple[dict[str, str], int, int], tmp_path: Path, after: bool
) -> None:
    expected, requests, _ = undisturbed
    assert requests > 30
    for at in range(1, requests + 1):
        folder = tmp_path / f"{after}-{at}"
        plain = FileStore(folder)
        cluster = FakeCluster(plain)
        cluster.add_run(NAME, recipe(SHARDS))
        _, killed = drive(cluster, plain, DeadlyStore(folder, at, after))
        assert killed and digests(plain) == expected, at
        published_once(plain, cluster)


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_killed_at_every_request_to_the_api(
    undisturbed: tuple[dict[str, str], int, int], tmp_path: Path, after: bool
) -> None:
    expected, _, requests = undisturbed
    assert requests > 30
    for at in range(2, requests + 1):  # the first one is the test's own: it creates the run
        folder = tmp_path / f"{after}-{at}"
        plain = FileStore(folder)
        cluster = FakeCluster(plain)
        cluster.add_run(NAME, recipe(SHARDS))
        killed = _deadly_at(cluster, at, after)
        drive(cluster, plain, plain)
        assert killed == [at] and digests(plain) == expected, at
        published_once(plain, cluster)


def _deadly_at(cluster: FakeCluster, at: int, after: bool) -> list[int]:
    """Kills whoever sends request number `at`; returns a list that then holds it."""
    killed: list[int] = []
    send = cluster.send

    def deadly(*arguments: Any) -> Answer:
        due = len(cluster.seen) + 1 == at and not killed
        if due and not after:
            killed.append(at)
            raise Killed
        answer = send(*arguments)
        if due:
            killed.append(at)
            raise Killed
        return answer

    cluster.send = deadly  # type: ignore[method-assign]
    return killed


def test_two_controllers_at_once_without_a_lease_do_no_harm(
    undisturbed: tuple[dict[str, str], int, int], tmp_path: Path
) -> None:
    store = FileStore(tmp_path)
    cluster = FakeCluster(store)
    cluster.add_run(NAME, recipe(SHARDS))
    pair = [make_controller(tools(cluster, store)) for _ in range(2)]
    for _ in range(ROUNDS):
        sweep(*pair)
        cluster.work(one_shard_fails_once)
        if cluster.run(NAME)["status"]["phase"] == "Succeeded":
            break
    assert digests(store) == undisturbed[0]
    published_once(store, cluster)


ANSWERS: dict[str, Answer | NoAnswer] = {
    "409": refusal(409, "Conflict"),
    "410": refusal(410, "Expired"),
    "429": refusal(429, "TooManyRequests", **{"retry-after": "1"}),
    "500": refusal(500, "InternalError"),
    "403": refusal(403, "Forbidden"),
    "nothing": NoAnswer("connection reset"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_api_server_that_answers_badly_now_and_then_changes_nothing(
    undisturbed: tuple[dict[str, str], int, int], tmp_path: Path, kind: str
) -> None:
    store = FileStore(tmp_path)
    cluster = FakeCluster(store)
    cluster.add_run(NAME, recipe(SHARDS))
    chance = random.Random(7)
    cluster.fault = lambda method, path: ANSWERS[kind] if chance.random() < 0.3 else None
    controller = make_controller(tools(cluster, store))
    for _ in range(10 * ROUNDS):
        sweep(controller)
        cluster.work(one_shard_fails_once)
        if cluster.run(NAME).get("status", {}).get("phase") == "Succeeded":
            break
    assert digests(store) == undisturbed[0]
    published_once(store, cluster)
