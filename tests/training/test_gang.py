"""Pods that meet, agree and end alike, without a training: each pod is a thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from stages.contract.errors import ExitCode, Interrupted, StageError
from stages.contract.pods import ALONE, Pods, read_pods
from stages.contract.task import Shards
from stages.distributed import free_port
from stages.training import link, rendezvous
from stages.training.checkpoints import CheckpointFile
from stages.training.gang import Gang, Start, worst
from stages.training.rendezvous import Introduction, gather, join
from tests.support import make_task
from tests.training.rows import COMMON

ME = Introduction(task="runs/r/tasks/sft-1.json", fingerprint="f", ranks=2)
START = Start(attempt="a1", port=1, resume="some/marker")
FILES = {"rank.pt": CheckpointFile(size=4, sha256="00")}


def go_on() -> None:
    """Nobody asks these pods to stop."""


def error(code: ExitCode, message: str = "") -> StageError:
    return StageError(message or code.name, code=code)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as found:
        yield found


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONTESSORI_RENDEZVOUS_PATIENCE", "20")


def pod(place: int, port: int, count: int = 2, host: str = "localhost") -> Pods:
    return Pods(count, place, host, port)


def met(pool: ThreadPoolExecutor, count: int = 2) -> list[Gang]:
    """Each pod's view, once all have started."""
    port = free_port()
    joining = [pool.submit(join, pod(place, port, count), ME, go_on) for place in range(1, count)]
    first = gather(pod(0, port, count), ME, go_on)
    first.tell("start", **START.model_dump())
    others = [each.result() for each in joining]
    assert all(start == START for _, start in others)
    return [first, *(gang for gang, _ in others)]


def settled(gang: Gang, *errors: StageError) -> StageError:
    try:
        gang.settle(errors)
    except StageError as found:
        return found


def checked(gang: Gang, **how: Any) -> StageError:
    """What comes of it once the others' words have arrived."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        gang.take_in()
        try:
            gang.check(**how)
        except StageError as found:
            return found
        time.sleep(0.01)
    raise AssertionError("nothing ended the training")


def within(check: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not check() and time.monotonic() < end:
        time.sleep(0.01)
    return check()


def test_three_pods_meet_and_hear_the_same_start(pool: ThreadPoolExecutor) -> None:
    assert [gang.pods.place for gang in met(pool, 3)] == [0, 1, 2]


def test_a_name_that_does_not_resolve_is_waited_for_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONTESSORI_RENDEZVOUS_PATIENCE", "1")
    with pytest.raises(StageError, match=r"nowhere\.invalid:29500.*did not answer within 1 s") as caught:
        join(pod(1, 29500, host="nowhere.invalid"), ME, go_on)
    assert caught.value.code == ExitCode.BUG


def test_a_pod_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONTESSORI_RENDEZVOUS_PATIENCE", "1")
    with pytest.raises(StageError, match="pods 1, 2 of 3 did not come within 1 s") as caught:
        gather(pod(0, free_port(), 3), ME, go_on)
    assert caught.value.code == ExitCode.BUG


def test_waiting_pods_can_be_stopped() -> None:
    def stop() -> None:
        raise Interrupted()

    for wait in (gather, join):
        with pytest.raises(Interrupted):
            wait(pod(int(wait is join), free_port()), ME, stop)


def test_strangers_and_pods_of_other_work_are_not_let_in(pool: ThreadPoolExecutor) -> None:
    port = free_port()
    gathering = pool.submit(gather, pod(0, port), ME, go_on)
    said = (b"GET / HTTP/1.1\r\n\r\n", b'{"kind": "hello", "place": 1, "task": "other", "fingerprint": "f"}\n', b"[]\n")
    for text in said:
        assert within(lambda: _reachable(port))
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(text)
            assert _turned_away(stranger)
    assert not gathering.done()
    joining = pool.submit(join, pod(1, port), ME, go_on)
    gathering.result().tell("start", **START.model_dump())
    assert joining.result()[1] == START


def test_a_pod_that_died_before_all_were_there_makes_room_for_its_replacement(pool: ThreadPoolExecutor) -> None:
    port = free_port()
    gathering = pool.submit(gather, pod(0, port, 3), ME, go_on)
    assert within(lambda: _reachable(port))
    dead = socket.create_connection(("127.0.0.1", port))
    dead.sendall(b'{"kind": "hello", "place": 1, "task": "runs/r/tasks/sft-1.json", "fingerprint": "f", "ranks": 2}\n')
    dead.close()
    joining = [pool.submit(join, pod(1, port, 3), ME, go_on)]
    time.sleep(1)
    joining.append(pool.submit(join, pod(2, port, 3), ME, go_on))
    gathering.result().tell("start", **START.model_dump())
    assert [each.result()[1] for each in joining] == [START, START]


def test_pods_with_different_numbers_of_ranks_are_told_so(pool: ThreadPoolExecutor) -> None:
    port = free_port()
    other = Introduction(ME.task, ME.fingerprint, ranks=1)
    both: list[Future[Any]] = [
        pool.submit(gather, pod(0, port), ME, go_on),
        pool.submit(join, pod(1, port), other, go_on),
    ]
    for each in both:
        with pytest.raises(StageError, match="pod 1 has 1 ranks, the first pod 2") as caught:
            each.result()
        assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_checkpoint_is_whole_when_every_pod_has_its_part_in_the_store(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    first.part(5, {"first.pt": CheckpointFile(size=1, sha256="11")})
    assert first.whole() == {}
    second.part(5, FILES)
    assert within(lambda: (first.take_in(), len(first.parts[5]) == 2)[1])
    assert first.whole() == {5: FILES | {"first.pt": CheckpointFile(size=1, sha256="11")}}
    assert first.whole() == {} and second.whole() == {}


def test_a_part_that_could_not_be_stored_leaves_the_checkpoint_out(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    first.part(5, FILES)
    second.part(5, None)
    assert within(lambda: (first.take_in(), len(first.parts[5]) == 2)[1])
    assert first.whole() == {} and first.parts == {}


def test_a_pod_alone_has_whole_checkpoints_at_once() -> None:
    gang = Gang()
    gang.part(5, FILES)
    gang.check()
    assert gang.whole() == {5: FILES}
    assert settled(gang, error(ExitCode.GATE)).code == ExitCode.GATE


def test_a_wish_to_stop_reaches_the_first_pod(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    second.tell("stop")
    assert within(lambda: (first.take_in(), first.stop_wanted)[1])


def test_a_lost_pod_is_noticed_and_named(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    second.links[0]._connection.shutdown(socket.SHUT_RDWR)
    found = checked(first)
    assert found.code == ExitCode.INTERRUPTED and "pod 1 of 2 was lost" in str(found)
    assert checked(second).code == ExitCode.INTERRUPTED


def test_a_silent_pod_is_lost(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PING_S", 1000.0)  # as one whose node is gone: nothing is closed, nothing is said
    first, _ = met(pool)
    monkeypatch.setattr(link, "SILENCE_S", 0.5)
    assert "lost" in str(checked(first))


def test_all_pods_end_with_what_a_person_can_act_on(pool: ThreadPoolExecutor) -> None:
    first, second, third = met(pool, 3)
    ending = [
        pool.submit(settled, first, error(ExitCode.BUG, "connection reset")),
        pool.submit(settled, second, error(ExitCode.OUT_OF_MEMORY, "the second's memory")),
        pool.submit(settled, third, error(ExitCode.BUG, "connection reset too")),
    ]
    assert {str(each.result()) for each in ending} == {"the second's memory"}


def test_a_connection_that_broke_because_a_pod_was_lost_is_no_bug(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    second.links[0]._connection.shutdown(socket.SHUT_RDWR)
    found = settled(first, error(ExitCode.BUG, "connection reset"))
    assert found.code == ExitCode.INTERRUPTED and "was lost" in str(found)


def test_while_stopping_a_pod_that_ends_as_interrupted_is_as_it_should_be(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    ending = pool.submit(settled, second, Interrupted())
    time.sleep(0.3)
    first.take_in()
    first.check(stopping=True)
    assert checked(first).code == ExitCode.INTERRUPTED
    settled(first, Interrupted())
    assert ending.result().code == ExitCode.INTERRUPTED


def test_the_others_wait_until_the_first_has_published(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    waiting = pool.submit(second.await_published)
    time.sleep(0.2)
    assert not waiting.done()
    first.tell_published()
    waiting.result(timeout=10)


def test_a_first_pod_that_dies_before_publishing_ends_the_others_as_interrupted(pool: ThreadPoolExecutor) -> None:
    first, second = met(pool)
    waiting = pool.submit(second.await_published)
    first.close()
    with pytest.raises(StageError) as caught:
        waiting.result(timeout=10)
    assert caught.value.code == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("codes", "lost", "expected"),
    [
        ([70, 75], False, 70),
        ([70, 75], True, 75),
        ([75, 70, 76], True, 76),
        ([70, 64, 66], False, 64),
        ([69, 70], False, 69),
        ([75], False, 75),
    ],
)
def test_the_worst_is_what_can_be_acted_on_then_what_explains_the_rest(
    codes: list[int], lost: bool, expected: int
) -> None:
    assert worst([error(ExitCode(code)) for code in codes], lost=lost).code == expected


@pytest.mark.parametrize(
    ("stage", "environment", "index", "words"),
    [
        ("sft", {"MONTESSORI_PODS": "two"}, 0, "not a number of pods: 'two'"),
        ("sft", {"MONTESSORI_PODS": "0"}, 0, "not a number of pods: '0'"),
        ("sft", {"MONTESSORI_PODS": "2"}, 0, "not HOST:PORT: ''"),
        ("sft", {"MONTESSORI_PODS": "2", "MONTESSORI_RENDEZVOUS": "host:http"}, 0, "not HOST:PORT: 'host:http'"),
        ("sft", {"MONTESSORI_PODS": "2", "MONTESSORI_RENDEZVOUS": "host:1"}, 2, "there is no pod 2 of 2"),
        ("tests.toy.lines", {"MONTESSORI_PODS": "2"}, 0, "pods of tests.toy.lines do not work together"),
    ],
)
def test_an_environment_that_makes_no_sense_is_bad_settings(
    monkeypatch: pytest.MonkeyPatch, stage: str, environment: dict[str, str], index: int, words: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError, match=words) as caught:
        read_pods(make_task(stage, COMMON if stage == "sft" else {}), index)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_pods_share_one_shard_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONTESSORI_PODS", "2")
    task = make_task("sft", COMMON).model_copy(update={"shards": Shards(count=2, indices=(0, 1))})
    with pytest.raises(StageError, match="2 pods cannot share 2 shards"):
        read_pods(task, 0)


def test_the_environment_names_the_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_pods(make_task("sft", COMMON), 0) is ALONE
    monkeypatch.setenv("MONTESSORI_PODS", "2")
    monkeypatch.setenv("MONTESSORI_RENDEZVOUS", "run-sft-0.run-sft:29500")
    assert read_pods(make_task("sft", COMMON), 1) == Pods(2, 1, "run-sft-0.run-sft", 29500)


def _reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _turned_away(stranger: socket.socket) -> bool:
    try:
        return stranger.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_variable_for_patience_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONTESSORI_RENDEZVOUS_PATIENCE", "long")
    with pytest.raises(StageError, match="not a number of seconds: 'long'"):
        rendezvous.patience_s()
