"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stages.contract.store import FileStore, Store
from tests.support import tiny_llama

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that downloads would pass on some machines only
# Workers that each have threads for every core mostly wait for one another. Set before torch is there.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))
if _WORKERS > 1:
    # What vLLM and trainings start has a thread for each core all the same; those that wait must not spin.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    return FileStore(tmp_path / "store")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny Llama for the session: read it, never write to it. It may serve as teacher and as student."""
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")
