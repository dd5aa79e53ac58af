"""How the pods of a training find each other: the first listens, the others connect until it answers."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.contract.pods import Pods
from stages.training.gang import Gang, Start
from stages.training.link import Link

PATIENCE_VARIABLE = "MONTESSORI_RENDEZVOUS_PATIENCE"
DEFAULT_PATIENCE_S = 900.0  # a node may have to be started for a pod, and its image to be pulled
_RETRY_S = 0.5
_HELLO_S = 5.0
_LONGEST_HELLO = 4096


@dataclass(frozen=True)
class Introduction:
    """What a pod says of itself: which work it has come for, and with how many ranks."""

    task: str
    fingerprint: str
    ranks: int


def patience_s() -> float:
    """How long a pod waits for the others: MONTESSORI_RENDEZVOUS_PATIENCE in seconds.

    Raises:
        StageError: BAD_SETTINGS when the variable is no number.
    """
    text = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        return float(text) if text else DEFAULT_PATIENCE_S
    except ValueError:
        raise bad_settings(f"{PATIENCE_VARIABLE} is not a number of seconds: {text!r}") from None


def gather(pods: Pods, me: Introduction, check_stop: Callable[[], None]) -> Gang:
    """Waits, in the first pod, until all others have connected.

    Raises:
        StageError: BUG (which counts against the retries) when some have not come in time, BAD_SETTINGS when the pods
            have different numbers of ranks; Interrupted by `check_stop`.
    """
    end = time.monotonic() + patience_s()
    links: dict[int, Link] = {}
    with _listening(pods.port) as listening:
        listening.settimeout(_RETRY_S)
        while len(links) < pods.count - 1:
            check_stop()
            if time.monotonic() > end:
                missing = sorted(set(range(1, pods.count)) - links.keys())
                raise _nobody(
                    f"{_places(missing)} of {pods.count} did not come within {patience_s():.0f} s",
                    where=f"port {pods.port}",
                )
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            finally:
                links = {place: link for place, link in links.items() if not link.lost}
            _admit(connection, pods, me, links)
    return Gang(pods, links)


def join(pods: Pods, me: Introduction, check_stop: Callable[[], None]) -> tuple[Gang, Start]:
    """Connects to the first pod and waits until it says that all are there.

    Raises:
        StageError: BUG when the name did not resolve or nobody answered in time, BAD_SETTINGS when the first pod says
            that the pods do not match; Interrupted by `check_stop`.
    """
    log = structlog.get_logger()
    end = time.monotonic() + patience_s()
    reason = ""
    while time.monotonic() < end:
        check_stop()
        try:
            connection = socket.create_connection((pods.host, pods.port), timeout=_HELLO_S)
        except OSError as error:  # a name that is not there yet, a pod that does not listen yet
            if reason != str(error):
                reason = str(error)
                log.info("waiting for the first pod", address=f"{pods.host}:{pods.port}", reason=reason, pod=pods.place)
            time.sleep(_RETRY_S)
            continue
        link = Link(connection)
        link.send("hello", place=pods.place, task=me.task, fingerprint=me.fingerprint, ranks=me.ranks)
        start = _started(link, check_stop)
        if start is not None:
            return Gang(pods, {0: link}), start
        reason = "it ended the connection: it is training with the pod that this one replaces, or is ending itself"
        link.close()
        time.sleep(_RETRY_S)
    raise _nobody(
        f"the first pod did not answer within {patience_s():.0f} s: {reason}", where=f"{pods.host}:{pods.port}"
    )


def _listening(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError:  # the kernel knows IPv6 and the pod has no such address
                pass
        return socket.create_server(("", port))
    except OSError as error:
        raise StageError(
            f"cannot listen for the other pods: {error}",
            code=ExitCode.BUG,
            where=f"port {port}",
            hint="another process of this pod has the port",
        ) from None


def _admit(connection: socket.socket, pods: Pods, me: Introduction, links: dict[int, Link]) -> None:
    """Adds a pod that says what is expected, and closes the connection of anybody else."""
    hello = _hello(connection)
    known = {key: hello.get(key) for key in ("task", "fingerprint")} == {"task": me.task, "fingerprint": me.fingerprint}
    place, ranks = hello.get("place"), hello.get("ranks")
    if not known or not isinstance(place, int) or not 0 < place < pods.count:
        connection.close()
        return
    if place in links:  # the newer one counts: the older has been replaced, whether that shows yet or not
        links.pop(place).close()
    links[place] = Link(connection)
    if ranks != me.ranks:
        refusal = bad_settings(
            f"pod {place} has {ranks} ranks, the first pod {me.ranks}",
            where=me.task,
            hint="give all pods of a training the same GPUs, or set ranks",
        )
        gang = Gang(pods, links)
        gang.tell_verdict(refusal)
        gang.close()
        raise refusal


def _hello(connection: socket.socket) -> dict[str, object]:
    """The first line that a connection sends, byte by byte so that nothing of the next is taken."""
    end = time.monotonic() + _HELLO_S
    line = bytearray()
    try:
        while not line.endswith(b"\n") and len(line) < _LONGEST_HELLO and time.monotonic() < end:
            connection.settimeout(_HELLO_S)
            received = connection.recv(1)
            if not received:
                return {}
            line += received
        found = json.loads(line)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _started(link: Link, check_stop: Callable[[], None]) -> Start | None:
    """What the first pod says once all are there; None where it ends the connection instead."""
    while True:
        check_stop()
        lost = link.lost
        for message in link.received():
            kind = message.pop("kind")
            if kind == "start":
                return Start.model_validate(message)
            if kind == "verdict" and message["code"] == ExitCode.BAD_SETTINGS:
                link.close()
                raise bad_settings(message["message"], where=message["where"], hint=message["hint"])
        if lost:
            return None
        time.sleep(_RETRY_S / 10)


def _nobody(message: str, *, where: str) -> StageError:
    return StageError(
        message,
        code=ExitCode.BUG,
        where=where,
        hint=f"is that pod pending, or without its Service? {PATIENCE_VARIABLE} sets how long to wait",
    )


def _places(places: list[int]) -> str:
    return f"pod {places[0]}" if len(places) == 1 else f"pods {', '.join(map(str, places))}"
