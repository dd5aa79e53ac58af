"""What a shard tells about itself while it works: one small object in the store, rewritten every few seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

from pydantic import BaseModel, ConfigDict

from stages.contract.clock import stamp
from stages.contract.errors import StageError
from stages.contract.store import Store

INTERVAL_S = 2.0
HEARTBEAT_S = 30.0  # an unchanged record is written again after this time: the process lives


class ProgressRecord(BaseModel):
    """One shard's progress. `rate` is units a second over this attempt; `phase` says what is going on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    shard: int
    attempt: int
    phase: str
    done: int
    total: int
    unit: str
    rate: float | None
    updated: str


def progress_key(run: str, node: str, shard: int) -> str:
    return f"runs/{run}/progress/{node}/shard-{shard:05d}.json"


class Progress:
    """Holds a shard's counters and writes them from a thread: a long model call does not silence it."""

    def __init__(self, store: Store, key: str, shard: int, attempt: int) -> None:
        self._store = store.hasty()
        self._key = key
        self._state: dict[str, Any] = {"phase": "starting", "done": 0, "total": 0, "unit": "rows"}
        self._shard = shard
        self._attempt = attempt
        self._began = time.monotonic()
        self._at_start = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._written: dict[str, Any] | None = None
        self._written_at = 0.0
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def phase(self, phase: str) -> None:
        with self._lock:
            self._state["phase"] = phase

    def begin(self, total: int, *, done: int = 0, unit: str = "rows", phase: str | None = None) -> None:
        """Starts counting; `done` units were finished by an earlier attempt and do not enter the rate."""
        with self._lock:
            self._state.update(total=total, done=done, unit=unit, phase=phase or self._state["phase"])
            self._began, self._at_start = time.monotonic(), done

    def advance(self, by: int = 1) -> None:
        with self._lock:
            self._state["done"] += by

    def update(self, done: int) -> None:
        with self._lock:
            self._state["done"] = done

    def record(self) -> ProgressRecord:
        with self._lock:
            state = dict(self._state)
            elapsed = time.monotonic() - self._began
            advanced = state["done"] - self._at_start
        rate = advanced / elapsed if advanced > 0 and elapsed > 0 else None
        return ProgressRecord(shard=self._shard, attempt=self._attempt, rate=rate, updated=stamp(), **state)

    def close(self, phase: str) -> None:
        self.phase(phase)
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        self._write()

    def _loop(self) -> None:
        while True:
            self._write()
            if self._stopped.wait(INTERVAL_S):
                return

    def _write(self) -> None:
        with self._lock:
            if self._state == self._written and time.monotonic() - self._written_at < HEARTBEAT_S:
                return
            written = dict(self._state)
        try:
            self._store.put(self._key, self.record().model_dump_json().encode())
            self._written, self._written_at = written, time.monotonic()
        except StageError:
            # Progress is a courtesy: the work itself meets the same store and says so with the right code.
            return
