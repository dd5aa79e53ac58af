"""What the contract's tests start from: numbered rows, and the toy stage that multiplies them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.contract.artifact import Artifact
from stages.contract.execute import run_shard
from stages.contract.store import FileStore, Store
from stages.contract.task import ArtifactInput, Task
from tests.support import make_task, publish, run_stage

LINES, WHOLE = "tests.toy.lines", "tests.toy.whole"


def numbers(store: Store, rows: int) -> ArtifactInput:
    """An artifact with the rows 0, 1, 2, …"""
    return publish(store, "numbers", tables={"rows": pa.table({"number": list(range(rows))})})


def lines(store: Store, rows: int, *, shards: int = 1, **settings: Any) -> Artifact:
    """The toy stage's artifact of so many rows, made in this process."""
    return run_stage(store, LINES, settings, {"rows": numbers(store, rows)}, shards=shards)


def lines_task(store: Store, rows: int, *, shards: int = 1, **settings: Any) -> Task:
    return make_task(LINES, settings, {"rows": numbers(store, rows)}, shards=shards)


def undisturbed(folder: Path, rows: int, **settings: Any) -> str:
    """The digest of the toy stage's artifact where nothing happened to it, made in a store of its own."""
    return lines(FileStore(folder / "undisturbed"), rows, **settings).manifest.digest


def run_shards(store: Store, task: Task, shards: Sequence[int]) -> None:
    for shard in shards:
        run_shard(store, task, shard, threading.Event())


def products(rows: int, times: int = 2) -> list[dict[str, Any]]:
    """What the toy stage makes of the rows 0, 1, 2, …"""
    return [{"number": n, "product": n * times, "text": f"{n} × {times}"} for n in range(rows)]
