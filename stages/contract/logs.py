"""A stage's log: everything it and its children print, kept in the store while it runs, so that it outlives the pod."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

import structlog

from stages.contract.errors import StageError
from stages.contract.store import Store

INTERVAL_S = 5.0
QUIET_VARIABLE = "MONTESSORI_LOG_QUIET"  # set by the local runner: its terminal shows progress instead


def log_prefix(run: str, node: str, attempt: int, shard: int, pod: int = 0) -> str:
    """Where one shard's log lies; pods after the first that work on it together have one each."""
    of_pod = f"-pod-{pod}" if pod else ""
    return f"runs/{run}/logs/{node}-{attempt}/shard-{shard:05d}{of_pod}/"


class LogTee:
    """Sends file descriptors 1 and 2 through a pipe: to the terminal as before, and to the store in segments.

    Children inherit the descriptors, so torchrun's and the engines' output is in the log too. A segment is
    one object: S3 cannot append. What SIGKILL takes is at most the last INTERVAL_S seconds.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store.hasty()
        self._prefix = prefix
        self._segment = _next_segment(self._store, prefix)
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._quiet = bool(os.environ.get(QUIET_VARIABLE))
        self._saved: tuple[int, int] | None = None
        self._reader = threading.Thread(target=self._read, name="log-reader", daemon=True)
        self._flusher = threading.Thread(target=self._flush_often, name="log-flusher", daemon=True)

    def start(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._source, sink = os.pipe()
        self._saved = (os.dup(1), os.dup(2))
        self._terminal = os.dup(2)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.close(sink)
        self._reader.start()
        self._flusher.start()

    def close(self) -> None:
        """Gives the descriptors back and writes what is left."""
        assert self._saved is not None
        sys.stdout.flush()
        sys.stderr.flush()
        for saved, number in zip(self._saved, (1, 2), strict=True):
            os.dup2(saved, number)
            os.close(saved)
        self._reader.join(timeout=2)  # a child that outlives us may hold the pipe open: do not wait for it
        self._stopped.set()
        self._flusher.join(timeout=30)
        self._flush()

    def _read(self) -> None:
        listening = not self._quiet
        while data := os.read(self._source, 65536):
            with self._lock:
                self._buffer += data
            if listening:
                listening = _written(self._terminal, data)
        os.close(self._terminal)
        os.close(self._source)

    def _flush_often(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            data, self._buffer = bytes(self._buffer), bytearray()
        if not data:
            return
        try:
            # another process of the same shard may be writing segments too: neither loses its own
            while not self._store.put_if_absent(f"{self._prefix}{self._segment:06d}.log", data):
                self._segment += 1
            self._segment += 1
        except StageError:
            with self._lock:  # the store is away: keep the text for the next try
                self._buffer[:0] = data


def _written(terminal: int, data: bytes) -> bool:
    """Whether somebody still reads; the pipe is emptied either way, or the stage would hang."""
    try:
        while data:
            data = data[os.write(terminal, data) :]
    except OSError:
        return False
    return True


def _next_segment(store: Store, prefix: str) -> int:
    try:
        return sum(1 for _ in store.list(prefix))
    except StageError:
        return 0  # the stage itself meets the same store next and names the fault


def read_log(store: Store, prefix: str) -> str:
    """All segments of one shard's log, in order."""
    parts = [store.get_or_none(key) or b"" for key, _ in store.list(prefix)]
    return b"".join(parts).decode("utf-8", "replace")


def configure(stream: TextIO | None = None) -> None:
    """Sets structlog up: plain lines on a terminal, JSON lines elsewhere."""
    out = stream or sys.stderr
    terminal = out.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
