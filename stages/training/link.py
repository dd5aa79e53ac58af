"""One connection between two pods of a training: messages in order, both ways, and whether the other side lives.

Messages are lines of JSON, so that a stranger who connects can do no more than be refused. Each side says something
every PING_S; one that is silent for SILENCE_S is lost, which is how a pod whose node vanished is noticed: TCP alone
would wait for minutes, and the ranks' own collectives for half an hour. It runs in threads of its own, because the
stage's thread may be uploading a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from typing import Any

PING_S = 2.0
SILENCE_S = 25.0
GOODBYE_S = 5.0
_LONGEST = 64 * 2**20  # a message's bytes: a checkpoint's list of files is the longest

Message = dict[str, Any]


class Link:
    """A connection that is taken over from here on: reading, pinging and closing are the link's."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # else a full buffer would hold the sender for ever
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_S * 1000))
        self.address: str = connection.getpeername()[0]
        self._connection = connection
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._ended = threading.Event()
        self._sending = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="link-reader", daemon=True)
        self._reader.start()
        threading.Thread(target=self._ping, name="link-ping", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether nothing more is to come, other than what has arrived."""
        return self._ended.is_set() or time.monotonic() - self._heard > SILENCE_S

    def send(self, kind: str, **body: Any) -> None:
        """Sends a message; where the other side is gone that shows in `lost`."""
        line = json.dumps({"kind": kind, **body}).encode() + b"\n"
        try:
            with self._sending:
                self._connection.sendall(line)
        except OSError:
            self._ended.set()

    def received(self) -> list[Message]:
        """What has arrived since the last call, in order."""
        found = []
        while True:
            try:
                found.append(self._inbox.get_nowait())
            except queue.Empty:
                return found

    def close(self) -> None:
        """Lets the other side read to the end: a connection closed over unread bytes takes back what was sent."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._reader.join(GOODBYE_S)
        self._ended.set()
        self._connection.close()

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(_LONGEST):
                    message = json.loads(line)
                    self._heard = time.monotonic()
                    if message["kind"] != "ping":
                        self._inbox.put(message)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # reset, or no message of ours: lost either way
        self._ended.set()

    def _ping(self) -> None:
        while not self._ended.wait(PING_S):
            self.send("ping")
