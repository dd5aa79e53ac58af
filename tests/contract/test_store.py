"""What every store must do alike: a folder, SeaweedFS, MinIO."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store, open_store

MULTIPART_BYTES = 70 << 20  # above the 64 MiB from which an upload has several parts
RACERS = 16
SPAWN = multiprocessing.get_context("spawn")


def test_what_is_put_can_be_got(store: Store) -> None:
    store.put("a/b.json", b'{"x": 1}')
    store.put("empty", b"")
    assert (store.get("a/b.json"), store.get("empty")) == (b'{"x": 1}', b"")
    assert store.get_json("a/b.json") == {"x": 1}
    assert (store.size("a/b.json"), store.size("empty")) == (8, 0)


def test_put_replaces(store: Store) -> None:
    store.put("a", b"one, and long")
    store.put("a", b"two")
    assert store.get("a") == b"two"


def test_a_missing_object_is_none_or_an_error_that_names_it(store: Store, tmp_path: Path) -> None:
    assert store.get_or_none("no/such") is None
    assert store.get_json("no/such") is None
    assert store.size("no/such") is None
    for read in (lambda: store.get("no/such"), lambda: store.get_file("no/such", tmp_path / "x")):
        with pytest.raises(StageError, match=f"{store.uri}/no/such: there is no such object") as caught:
            read()
        assert caught.value.code is ExitCode.BAD_DATA


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("a/b", b"x")
    assert store.get_or_none("a") is None
    assert store.size("a") is None


def test_what_is_not_json_is_bad_data(store: Store) -> None:
    store.put("a.json", b"{")
    with pytest.raises(StageError, match="not JSON") as caught:
        store.get_json("a.json")
    assert caught.value.code is ExitCode.BAD_DATA


def test_listing_is_in_key_order_and_by_prefix(store: Store) -> None:
    keys = ["b/2", "a/x-1", "a/x/1", "a/x/10", "a/x/2", "ab", "a/ü 1", "c"]
    for key in keys:
        store.put(key, key.encode())
    assert [each.key for each in store.list("")] == sorted(keys)
    assert [tuple(each) for each in store.list("a/x/")] == [("a/x/1", 5), ("a/x/10", 6), ("a/x/2", 5)]
    assert [each.key for each in store.list("a/x")] == ["a/x-1", "a/x/1", "a/x/10", "a/x/2"]
    assert [each.key for each in store.list("a/x/1")] == ["a/x/1", "a/x/10"]
    assert list(store.list("none/")) == list(store.list("zz")) == []


def test_listing_goes_past_one_page(store: Store) -> None:
    keys = [f"many/{number:05d}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))
    assert [each.key for each in store.list("many/")] == keys
    store.delete(keys)
    assert list(store.list("many/")) == []


def test_delete_removes_and_does_not_mind_what_is_not_there(store: Store) -> None:
    store.put("a/b/c", b"1")
    store.put("a/d", b"2")
    store.delete(["a/b/c", "a/nothing", "x/y"])
    store.delete([])
    assert [each.key for each in store.list("")] == ["a/d"]


def test_a_large_file_goes_up_and_down_whole(store: Store, tmp_path: Path) -> None:
    block = hashlib.sha256(b"seed").digest() * (1 << 15)
    source, copy = tmp_path / "source", tmp_path / "copy"
    with source.open("wb") as file:
        for number in range(MULTIPART_BYTES // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    store.put_file("models/large.safetensors", source)
    store.get_file("models/large.safetensors", copy)
    assert store.size("models/large.safetensors") == source.stat().st_size
    assert _sha256(copy) == _sha256(source)


def test_put_if_absent_is_true_once(store: Store) -> None:
    assert store.put_if_absent("a/m", b"1") is True
    assert store.put_if_absent("a/m", b"2") is False
    assert store.put_if_absent("a/m", b"1") is False  # the same bytes: still the second writer
    assert store.get("a/m") == b"1"
    store.delete(["a/m"])
    assert store.put_if_absent("a/m", b"3") is True


@pytest.mark.parametrize("same_bytes", [False, True])
def test_of_16_threads_exactly_one_is_first(store: Store, same_bytes: bool) -> None:
    for turn in range(2):
        key, gate = f"race/{turn}", threading.Barrier(RACERS)
        bodies = [b"same" if same_bytes else f"writer {number}".encode() * 100 for number in range(RACERS)]

        def write(number: int, key: str = key, gate: threading.Barrier = gate, bodies: list[bytes] = bodies) -> bool:
            gate.wait()
            return store.put_if_absent(key, bodies[number])

        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(write, range(RACERS)))
        assert sum(won) == 1
        assert store.get(key) == bodies[won.index(True)]


def test_of_4_processes_exactly_one_is_first_each_time(store: Store) -> None:
    with SPAWN.Pool(4) as pool:
        firsts = pool.map(_write_all, [(store.uri, number) for number in range(4)], chunksize=1)
    for turn, won in enumerate(zip(*firsts, strict=True)):
        assert sum(won) == 1
        assert store.get(f"race/{turn}") == str(won.index(True)).encode()


def _write_all(work: tuple[str, int]) -> list[bool]:
    uri, number = work
    store = open_store(uri)
    return [store.put_if_absent(f"race/{turn}", str(number).encode()) for turn in range(20)]


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(4)]
    store.put("whole", bodies[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for body in bodies:
                store.put("whole", body)

    writer = threading.Thread(target=write)
    writer.start()
    seen = [store.get("whole") for _ in range(50)]
    stop.set()
    writer.join()
    assert all(each in bodies for each in seen)


def test_a_writer_and_a_deleter_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")

    def write(number: int) -> None:
        for turn in range(200):
            store.put(f"a/b/{number}", str(turn).encode())
            store.delete([f"a/b/{number}"])
            list(store.list("a/"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert list(store.list("")) == []


def test_half_written_files_are_not_listed(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    store.put("a/b", b"x")
    (tmp_path / "store" / "a" / ".partial-0123").write_bytes(b"hal")
    assert [each.key for each in store.list("")] == ["a/b"]


@pytest.mark.parametrize("form", ["file://{}", "file:{}", "{}"])
def test_a_folder_is_named_in_several_ways(form: str, tmp_path: Path) -> None:
    opened = open_store(form.format(tmp_path / "my store"))
    opened.put("a", b"1")
    assert (tmp_path / "my store" / "a").read_bytes() == b"1"
    assert open_store(opened.uri).get("a") == b"1"


@pytest.mark.parametrize("uri", ["http://host/x", "gs://bucket/x", "s3:///x", "s3://", "s3:/bucket/x", "s3:bucket"])
def test_another_kind_of_store_is_refused(uri: str) -> None:
    with pytest.raises(StageError, match="s3://") as caught:
        open_store(uri)
    assert caught.value.code is ExitCode.BAD_SETTINGS


def test_a_store_without_prefix_is_the_whole_bucket(s3_store: Store) -> None:
    root = open_store(s3_store.uri.rsplit("/", 2)[0])
    name = s3_store.uri.split("/")[3]
    root.put(f"{name}/x", b"1")
    assert root.get(f"{name}/x") == b"1"
    assert [each.key for each in root.list(f"{name}/")] == [f"{name}/x"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_the_umask_of_objects_lets_others_read(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        store = FileStore(tmp_path / "store")
        store.put("a", b"1")
        store.put_if_absent("b", b"1")
        assert {(tmp_path / "store" / each).stat().st_mode & 0o777 for each in "ab"} == {0o644}
    finally:
        os.umask(old)
