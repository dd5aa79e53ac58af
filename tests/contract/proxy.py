"""A small HTTP proxy before an S3 or API server: answers some requests itself, or loses the answers of others."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlparse


class Fault(NamedTuple):
    """What becomes of a request: an answer of our own; or, if `lost`, it is done and its answer never arrives.

    `stays`: so does every later request of this connection. Without a `code` the answer has no body.
    """

    status: int = 500
    code: str = "InternalError"
    lost: bool = False
    stays: bool = False
    status_object: bool = False  # Kubernetes' kind of body, not S3's

    def body(self) -> bytes:
        if not self.code:
            return b""
        if self.status_object:
            return json.dumps({"kind": "Status", "code": self.status, "reason": self.code, "message": "no"}).encode()
        return f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()


LOST = Fault(lost=True)
ELSEWHERE = Fault(404, code="", stays=True)  # the connection has reached something that is no S3 server


class Proxy:
    """Forwards to `target` (None: answers everything itself), and waits `timeout` seconds for it (None: for ever).

    `decide(method, headers, number)` may name a fault.
    """

    def __init__(self, target: str | None, timeout: float | None = 30.0) -> None:
        self.decide: Callable[[str, Any, int], Fault | None] = lambda method, headers, number: None
        self.requests = 0
        self.path = ""  # of the request that is decided on
        self.faults = 0
        self._lock = threading.Lock()
        self._timeout = timeout
        self._target = urlparse(target).netloc if target else None
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            fault: Fault | None = None  # of this connection

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing: pytest would show every request."""

            def _serve(self) -> None:
                proxy._answer(self)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _serve

        return Handler

    def _answer(self, request: Any) -> None:
        if "100-continue" in request.headers.get("Expect", ""):
            del request.headers["Expect"]  # http.server has said "continue" already
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._lock:
            self.requests += 1
            self.path = request.path
            fault = request.fault or self.decide(request.command, request.headers, self.requests)
            request.fault = fault if fault is not None and fault.stays else None
            self.faults += fault is not None
        if fault is not None and not fault.lost:
            return _send(request, fault.status, {}, fault.body())
        assert self._target is not None
        upstream = http.client.HTTPConnection(self._target, timeout=self._timeout)
        try:
            # The request's own Host header goes along: it is signed.
            upstream.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            data = answer.read()
        except (http.client.HTTPException, ConnectionError):
            fault = LOST  # as its own answer was
        finally:
            upstream.close()
        if fault is not None:
            request.close_connection = True
            return None
        return _send(request, answer.status, dict(answer.getheaders()), data)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that is gone: some are killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes) -> None:
    request.send_response_only(status)
    kept = {name: value for name, value in headers.items() if name.lower() not in {"connection", "transfer-encoding"}}
    if request.command != "HEAD":
        kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
        kept["Content-Length"] = str(len(data))
    elif not any(name.lower() == "content-length" for name in kept):
        kept["Content-Length"] = "0"
    for name, value in kept.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)
