"""What a person reads when a store cannot be used, and the exit code that goes with it."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store, open_store
from tests.contract.conftest import use_server
from tests.contract.proxy import Fault, Proxy
from tests.contract.servers import (
    ACCESS_KEY,
    BUCKET,
    READER_KEY,
    READER_SECRET,
    SECRET_KEY,
    Server,
    free_port,
)
from tests.support import stage_process

WRONG_KEYS = {
    "another key id": ("NOSUCHACCESSKEY0", SECRET_KEY),
    "another secret": (ACCESS_KEY, "wrong-secret-0123456789"),
}
WRITES: dict[str, Callable[[Store, Path], object]] = {
    "put": lambda store, path: store.put("a/x", b"1"),
    "put_if_absent": lambda store, path: store.put_if_absent("a/y", b"1"),
    "put_file": lambda store, path: store.put_file("a/z", path),
}
READS: dict[str, Callable[[Store, Path], object]] = {
    "get": lambda store, path: store.get("a"),
    "size": lambda store, path: store.size("a"),
    "list": lambda store, path: list(store.list("a/")),
    "get_file": lambda store, path: store.get_file("a", path),
}
ALL = {**READS, **WRITES, "delete": lambda store, path: store.delete(["a"])}


def failing(action: Callable[[], object]) -> StageError:
    """The error of an action, which has one clear line without the keys in it."""
    with pytest.raises(StageError) as caught:
        action()
    line = str(caught.value)
    assert "\n" not in line
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert not (key := os.environ.get(name, "").strip()) or key not in line
    return caught.value


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    path = tmp_path / "a_file"
    path.write_bytes(b"x" * 1000)
    return path


@pytest.mark.parametrize("keys", WRONG_KEYS.values(), ids=WRONG_KEYS)
@pytest.mark.parametrize("kind", ["seaweedfs", "minio"])
def test_wrong_keys_are_named_at_once(
    kind: str, keys: tuple[str, str], a_file: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    store = use_server(monkeypatch, request.getfixturevalue(f"{kind}_server").endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    for action in ALL.values():
        error = failing(lambda action=action: action(store, a_file))
        assert error.code is ExitCode.BAD_SETTINGS
        # HEAD has no body and so no reason
        assert "the S3 keys are refused" in str(error) or "these S3 keys may not do that" in str(error)


def test_no_keys_at_all_say_which_variables_to_set(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = failing(lambda: s3_store.get("a"))
    assert error.code is ExitCode.BAD_SETTINGS
    assert str(error) == f"{s3_store.uri}: no S3 credentials (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"


def test_a_role_for_which_there_are_no_keys_is_told_from_keys_that_are_refused(
    minio_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a pod on EKS whose role does not trust its ServiceAccount; this server trusts nobody's tokens."""
    store = use_server(monkeypatch, minio_server.endpoint)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    token = tmp_path / "token"
    token.write_text("a.b.c")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/montessori")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", minio_server.endpoint)
    error = failing(lambda: store.get("a"))
    assert error.code is ExitCode.BAD_SETTINGS
    assert "no keys for the role of AWS_ROLE_ARN (AssumeRoleWithWebIdentity" in error.message
    assert error.where == store.uri


def test_half_a_pair_of_keys_is_no_pair(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = failing(lambda: s3_store.get("a"))
    assert (error.code, error.message) == (ExitCode.BAD_SETTINGS, "no S3 credentials")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_line_break_after_a_key_is_named_and_the_key_is_not(
    name: str, s3_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, os.environ[name] + "\n")
    error = failing(lambda: s3_store.get("a"))
    assert error.code is ExitCode.BAD_SETTINGS
    assert "white space" in str(error)


def test_an_unknown_profile_is_bad_settings(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    error = failing(lambda: s3_store.get("a"))
    assert error.code is ExitCode.BAD_SETTINGS
    assert "nobody" in str(error)


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "127.0.0.1:9000"])
def test_an_endpoint_that_is_no_url_is_bad_settings(
    endpoint: str, s3_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert failing(lambda: s3_store.get("a")).code is ExitCode.BAD_SETTINGS


@pytest.mark.parametrize("action", READS.values(), ids=READS)
@pytest.mark.parametrize("kind", ["seaweedfs", "minio"])
def test_a_bucket_that_is_not_there_is_named(
    kind: str,
    action: Callable[[Store, Path], object],
    a_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    use_server(monkeypatch, request.getfixturevalue(f"{kind}_server").endpoint)
    store = open_store("s3://no-such-bucket/x")
    error = failing(lambda: action(store, a_file))
    assert error.code is ExitCode.BAD_SETTINGS
    assert error.message == "there is no bucket 'no-such-bucket'"


@pytest.mark.parametrize("action", WRITES.values(), ids=WRITES)
def test_minio_does_not_make_a_bucket_by_itself(
    action: Callable[[Store, Path], object], a_file: Path, minio_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(monkeypatch, minio_server.endpoint)
    error = failing(lambda: action(open_store("s3://no-such-bucket/x"), a_file))
    assert error.message == "there is no bucket 'no-such-bucket'"


@pytest.mark.parametrize("name", [*WRITES, "delete"])
def test_keys_that_may_only_read_say_so_on_writing(
    name: str, s3_store: Store, a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.put("a", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reader = open_store(s3_store.uri)
    assert reader.get("a") == b"1"
    error = failing(lambda: ALL[name](reader, a_file))
    assert error.code is ExitCode.BAD_SETTINGS
    assert error.message == "these S3 keys may not do that"
    assert error.where is not None and error.where.startswith(s3_store.uri)


@pytest.mark.parametrize("action", ALL.values(), ids=ALL)
def test_a_server_that_is_not_there_costs_patience_and_then_a_clear_line(
    action: Callable[[Store, Path], object], a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONTESSORI_STORE_PATIENCE", "0.5")
    store = use_server(monkeypatch, f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    error = failing(lambda: action(store, a_file))
    assert error.code is ExitCode.STORE
    assert error.message.startswith("the S3 server does not answer, tried for 0 s")
    assert time.monotonic() - began < 10


def test_patience_that_is_no_number_is_bad_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONTESSORI_STORE_PATIENCE", "5 minutes")
    error = failing(lambda: open_store("s3://b/x"))
    assert error.code is ExitCode.BAD_SETTINGS
    assert "MONTESSORI_STORE_PATIENCE" in str(error)


@pytest.fixture
def stub() -> Iterator[Proxy]:
    """A server that answers every request with the same error."""
    with Proxy(None) as running:
        yield running


@pytest.mark.parametrize("action", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("fault", [Fault(507, "XMinioStorageFull"), Fault(507, "X"), Fault(403, "QuotaExceeded")])
def test_a_full_server_is_named_at_once(
    fault: Fault,
    action: Callable[[Store, Path], object],
    stub: Proxy,
    a_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.decide = lambda *_: fault
    store = use_server(monkeypatch, stub.endpoint)
    error = failing(lambda: action(store, a_file))
    assert (error.code, error.message) == (ExitCode.STORE, "the S3 server is full")
    assert stub.requests <= 2


@pytest.mark.parametrize("action", ALL.values(), ids=ALL)
def test_a_server_that_always_fails_is_given_up_after_patience(
    action: Callable[[Store, Path], object], stub: Proxy, a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONTESSORI_STORE_PATIENCE", "0.5")
    stub.decide = lambda *_: Fault(500, "InternalError")
    error = failing(lambda: action(use_server(monkeypatch, stub.endpoint), a_file))
    assert error.code is ExitCode.STORE
    assert "does not answer" in error.message
    assert stub.requests > 1


@pytest.mark.parametrize(
    "fault", [Fault(501, "NotImplemented"), Fault(400, "InvalidRequest"), Fault(403, "RequestTimeTooSkewed")]
)
def test_a_refusal_that_we_do_not_know_is_quoted_and_not_repeated(
    fault: Fault, stub: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.decide = lambda *_: fault
    error = failing(lambda: use_server(monkeypatch, stub.endpoint).put_if_absent("a", b"1"))
    assert error.code is ExitCode.STORE
    assert error.message == f"the S3 server refuses the request ({fault.code}, HTTP {fault.status})"
    assert stub.requests <= 2


def test_the_local_disk_is_not_taken_for_the_server(s3_store: Store, tmp_path: Path) -> None:
    s3_store.put("a", b"1")
    error = failing(lambda: s3_store.get_file("a", tmp_path / "no" / "such" / "folder"))
    assert "a local file cannot be used" in str(error)


def test_one_undeleted_object_among_many_is_an_error(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_store.put("a", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    failing(lambda: open_store(s3_store.uri).delete(["a", "b"]))
    assert s3_store.get("a") == b"1"


@pytest.mark.parametrize("action", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_nothing_behind(
    action: Callable[[Store, Path], object],
    number: int,
    a_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    error = failing(lambda: action(FileStore(tmp_path / "store"), a_file))
    assert (error.code, error.message) == (ExitCode.STORE, "the disk is full")
    assert not [each for each in (tmp_path / "store").rglob("*") if each.is_file()]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    try:
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a small file system")
        store = FileStore(mount / "store")
        store.put("kept", b"1")
        error = failing(lambda: store.put("a", b"x" * (1 << 20)))
        assert (error.code, error.message) == (ExitCode.STORE, "the disk is full")
        assert [each.key for each in store.list("")] == ["kept"]
        store.put("b", b"2")
    finally:
        subprocess.run(["umount", str(mount)], capture_output=True)


def test_a_file_where_the_store_should_be_is_bad_settings(a_file: Path) -> None:
    error = failing(lambda: FileStore(a_file).put("a", b"1"))
    assert error.code is ExitCode.BAD_SETTINGS


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may read and write everything; in this test it is nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


def test_a_folder_without_permission_is_bad_settings(a_file: Path, ordinary_user: None) -> None:
    # pytest's own folders are closed to others
    with tempfile.TemporaryDirectory() as folder:
        store = FileStore(Path(folder) / "store")
        store.put("a/x", b"1")
        (Path(folder) / "store" / "a").chmod(0)
        for action in (*READS.values(), *WRITES.values()):
            if action is not READS["size"]:
                assert failing(lambda action=action: action(store, a_file)).code is ExitCode.BAD_SETTINGS
        (Path(folder) / "store" / "a").chmod(0o700)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-0123456789"}, 64, "the S3 keys are refused (SignatureDoesNotMatch)"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "MONTESSORI_STORE_PATIENCE": "0.5"}, 69, "does not answer"),
    ],
)
def test_a_container_with_such_a_store_prints_one_line(
    change: dict[str, str], code: int, text: str, s3_store: Store
) -> None:
    done = stage_process(f"s3://{BUCKET}/x/runs/test/tasks/a-1.json", env=change)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ") and text in done.stderr
    assert done.stderr.count("\n") == 1
    assert change.get("AWS_SECRET_ACCESS_KEY", SECRET_KEY) not in done.stderr
