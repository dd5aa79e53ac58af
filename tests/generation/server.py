"""A chat server on this machine that answers as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]


@dataclass
class Server:
    """What was asked, in order of arrival, and where."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def says(text: str, finish: str = "stop") -> Answer:
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def refuses(status: int, message: str, code: str | None = None) -> Answer:
    return status, {"error": {"message": message, "type": "error", "code": code}}


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # as many as connect at once: of five, a machine that connects fast sees the sixth reset


@contextmanager
def serving(
    answer: Callable[[int, dict[str, Any]], Answer], delay_s: float = 0, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[Server]:
    """A server whose `answer` gets the number of the request (from 0) and its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.bodies)
                server.bodies.append(body)
                server.keys.append(self.headers["Authorization"])
            time.sleep(delay_s)
            status, content = answer(number, body)
            data = json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                return  # the client stopped waiting, as some tests want

        def log_message(self, *_: Any) -> None:
            return

    http = _Server((host, port), Handler)
    server = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
