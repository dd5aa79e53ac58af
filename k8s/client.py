"""The Kubernetes API as raw JSON: few verbs, one namespace, errors that say what to do about them.

The typed client takes some twenty times longer over a large list, and its informer neither backs off nor lists again;
so only its configuration and connection pool are used. Answers that may change (429, 5xx, no answer) are tried again
until patience ends; what the caller has to decide (404, 409, 410, 422) comes out as an exception of its own.

A create whose answer was lost may have been done: the next try then says `Conflict`, and callers read the object.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from k8s import names

Object = dict[str, Any]

PATIENCE_S = 20.0
REQUEST_S = 15.0
PAGE = 500
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
MERGE_PATCH = "application/merge-patch+json"


class Answer(NamedTuple):
    """An answer as it came: status, headers (lower-case names), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """The connection failed, or nothing came in time."""


class Transport(Protocol):
    """What a client sends its requests through; tests put a cluster in memory there."""

    def send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None, content_type: str, timeout_s: float
    ) -> Answer:
        """One request; NoAnswer where none came."""

    def lines(self, path: str, query: Mapping[str, str], timeout_s: float) -> Iterator[bytes]:
        """The lines of an answer that goes on; NoAnswer once nothing came for `timeout_s`."""


class ApiError(Exception):
    """The API server refuses: `status` (HTTP), `reason` (its word for it), `message`."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message or reason} (HTTP {status})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message


class Absent(ApiError):
    """404: there is no such object, or no such kind."""


class Conflict(ApiError):
    """409: it exists already, or it changed since it was read."""


class Expired(ApiError):
    """410: a watch or the next page of a list asks for what is forgotten: list again."""


class Refused(ApiError):
    """400, 401, 403, 413, 422 and other 4xx: the same request will be refused again."""


class Unreachable(ApiError):
    """No answer, 429 or 5xx until patience ended: later it may be answered."""


def _error(answer: Answer) -> ApiError:
    try:
        status = json.loads(answer.body)
        reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):
        reason, message = "", answer.body[:200].decode("utf-8", "replace")
    kinds: dict[int, type[ApiError]] = {404: Absent, 409: Conflict, 410: Expired}
    passing = answer.status == 429 or answer.status >= 500
    return kinds.get(answer.status, Unreachable if passing else Refused)(answer.status, reason, message)


class Client:
    """Requests within one namespace.

    Args:
        transport: what carries them.
        namespace: where every object lies.
        patience_s: how long an answer that may change is asked for.
        observe: told of each request: verb, resource, status (0: no answer).
    """

    def __init__(
        self,
        transport: Transport,
        namespace: str,
        *,
        patience_s: float = PATIENCE_S,
        observe: Callable[[str, str, int], None] = lambda verb, resource, status: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.namespace = namespace
        self._transport = transport
        self._patience_s = patience_s
        self._observe = observe
        self._sleep = sleep

    def list(self, resource: str, *, labels: str = "", fields: str = "") -> Iterator[Object]:
        """Every object of a kind, page by page; a list that expires between two pages starts again.

        Objects may come twice then: callers put them into a mapping by name.
        """
        query = _selection(PAGE, labels, fields)
        token = ""
        while True:
            try:
                page = self._call("GET", resource, query=query | ({"continue": token} if token else {}))
            except Expired:
                if not token:
                    raise
                token = ""
                continue
            token = page.get("metadata", {}).get("continue", "")
            yield from page.pop("items", ())  # gone before the next page comes: each is tens of MiB
            if not token:
                return

    def some(self, resource: str, most: int, *, labels: str = "", fields: str = "") -> tuple[Sequence[Object], bool]:
        """At most so many objects of a kind, and whether there are more."""
        page = self._call("GET", resource, query=_selection(most, labels, fields))
        return page.get("items", ()), bool(page.get("metadata", {}).get("continue"))

    def get(self, resource: str, name: str) -> Object | None:
        """An object, or None where there is none."""
        try:
            return self._call("GET", resource, name)
        except Absent:
            return None

    def create(self, resource: str, body: Object) -> Object:
        """Creates an object. Raises Conflict where one of this name exists."""
        return self._call("POST", resource, body=body)

    def replace(self, resource: str, name: str, body: Object) -> Object:
        """Replaces an object as it was read. Raises Conflict where it changed since."""
        return self._call("PUT", resource, name, body=body)

    def patch(self, resource: str, name: str, body: Object, subresource: str = "") -> Object:
        """Merges values into an object (RFC 7386: a list is replaced as a whole)."""
        return self._call("PATCH", resource, name, subresource, body=body, content_type=MERGE_PATCH)

    def delete(self, resource: str, name: str) -> None:
        """Deletes an object and, behind it, what it owns. One that is gone is no error."""
        try:
            self._call("DELETE", resource, name, body={"propagationPolicy": "Background"})
        except Absent:
            return

    def log(self, pod: str, tail: int | None = None) -> str:
        """What a pod's stage printed so far."""
        query = {"container": names.CONTAINER} | ({"tailLines": str(tail)} if tail is not None else {})
        return self._send("GET", self._path("pods", pod, "log"), "pods/log", query, None, "").decode("utf-8", "replace")

    def follow_log(self, pod: str) -> Iterator[bytes]:
        """What a pod's stage prints, from its beginning, until it ends."""
        query = {"container": names.CONTAINER, "follow": "true"}
        yield from self._transport.lines(self._path("pods", pod, "log"), query, timeout_s=86_400)

    def watch(self, resource: str, *, labels: str = "", silent_s: float = 90.0) -> Iterator[tuple[str, Object]]:
        """(type, object) of every change from now on, until the server ends it.

        Raises:
            ApiError, NoAnswer: whatever it is, the caller lists and watches again.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "300"}
        query |= {"labelSelector": labels} if labels else {}
        for line in self._transport.lines(self._path(resource), query, silent_s):
            event = json.loads(line)
            kind, found = str(event.get("type", "")), event.get("object", {})
            if kind == "ERROR":
                raise Expired(int(found.get("code", 0)), str(found.get("reason", "")), str(found.get("message", "")))
            if kind != "BOOKMARK":
                yield kind, found

    def _path(self, resource: str, name: str = "", subresource: str = "") -> str:
        parts = [_ROOTS[resource], "namespaces", self.namespace, resource, name, subresource]
        return "/".join(part for part in parts if part)

    def _call(
        self,
        method: str,
        resource: str,
        name: str = "",
        subresource: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        path = self._path(resource, name, subresource)
        told = f"{resource}/{subresource}" if subresource else resource
        found = json.loads(self._send(method, path, told, query or {}, body, content_type))
        assert isinstance(found, dict)
        return found

    def _send(
        self, method: str, path: str, told: str, query: Mapping[str, str], body: Object | None, content_type: str
    ) -> bytes:
        end = time.monotonic() + self._patience_s
        wait = _FIRST_WAIT_S
        while True:
            asked: float | None = None
            try:
                answer = self._transport.send(method, path, query, body, content_type, REQUEST_S)
            except NoAnswer as fault:
                self._observe(method, told, 0)
                error: ApiError = Unreachable(0, "NoAnswer", f"the API server does not answer: {fault}")
            else:
                self._observe(method, told, answer.status)
                if answer.status < 300:
                    return answer.body
                error = _error(answer)
                asked = _retry_after(answer)
            pause = asked if asked is not None else wait * random.uniform(0.5, 1.5)
            if not isinstance(error, Unreachable) or time.monotonic() + pause > end:
                raise error
            self._sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT_S)


def _selection(limit: int, labels: str, fields: str) -> dict[str, str]:
    asked = {"limit": str(limit), "labelSelector": labels, "fieldSelector": fields}
    return {key: value for key, value in asked.items() if value}


def _retry_after(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


_ROOTS = {
    names.PLURAL: f"/apis/{names.API_VERSION}",
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "services": "/api/v1",
    "events": "/api/v1",
    "configmaps": "/api/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}


class HttpTransport:
    """Requests over the connection pool of the official client: its TLS, proxies and ways to authenticate."""

    def __init__(self, context: str | None = None) -> None:
        """Takes KUBECONFIG (`context` names one of it) or ~/.kube/config, and in a pod its own service account.

        Raises:
            kubernetes.config.ConfigException: there is none of them.
        """
        from kubernetes import client, config

        self._configuration = client.Configuration()
        self._configuration.connection_pool_maxsize = 32
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ and context is None:
            config.load_incluster_config(client_configuration=self._configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(context=context, client_configuration=self._configuration)  # type: ignore[no-untyped-call]
        self._pool: Any = client.ApiClient(self._configuration).rest_client.pool_manager
        self._token = threading.Lock()  # refreshing a token runs a program or reads a file: one at a time

    def send(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None, content_type: str, timeout_s: float
    ) -> Answer:
        response = self._open(method, path, query, body, content_type, timeout_s, preload=True)
        headers = {key.lower(): value for key, value in response.headers.items()}
        return Answer(int(response.status), headers, bytes(response.data))

    def lines(self, path: str, query: Mapping[str, str], timeout_s: float) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        response = self._open("GET", path, query, None, "", timeout_s, preload=False)
        try:
            if response.status >= 300:
                raise _error(Answer(int(response.status), {}, bytes(response.read(65536))))
            buffer = b""
            for data in response.stream(65536, decode_content=True):
                *whole, buffer = (buffer + data).split(b"\n")
                yield from (line for line in whole if line)
        except (HTTPError, OSError) as error:
            raise NoAnswer(str(error)) from None
        finally:
            response.close()

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        timeout_s: float,
        *,
        preload: bool,
    ) -> Any:
        from urllib.parse import urlencode

        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "User-Agent": "montessori"}
        with self._token:
            token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        try:
            return self._pool.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=Timeout(connect=5.0, read=timeout_s),
                preload_content=preload,
                retries=False,
            )
        except (HTTPError, OSError) as error:
            raise NoAnswer(str(error)) from None
