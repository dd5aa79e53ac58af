"""The cluster from outside: kubectl, helm, its nodes, ports of this machine that lead into it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from tests.cluster.access import CONTEXT_VARIABLE, unavailable
from tests.required import missing

IMAGE_VARIABLE = "MONTESSORI_TEST_IMAGE"
CONTROLLER_VARIABLE = "MONTESSORI_CONTROLLER_IMAGE"

REQUEST_S = 60.0  # one command
START_S = 300.0  # a Deployment, its volumes and images included
RUN_S = 300.0  # a toy run, faults included
LOOP_S = 1800.0  # the loop with real stages
OUTAGE_S = 30.0

_CONTEXT = os.environ.get(CONTEXT_VARIABLE) or None
KUBECTL = ["kubectl", *([f"--context={_CONTEXT}"] if _CONTEXT else [])]
HELM = ["helm", *([f"--kube-context={_CONTEXT}"] if _CONTEXT else [])]

Json = dict[str, Any]


def run(*command: str, given: str | None = None, timeout: float = REQUEST_S) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()[-3000:]}{done.stdout[-1000:]}"
    return done.stdout


def kubectl(*arguments: str, given: str | None = None, timeout: float = REQUEST_S) -> str:
    return run(*KUBECTL, *arguments, given=given, timeout=timeout)


def helm(*arguments: str, given: str | None = None, timeout: float = REQUEST_S) -> str:
    return run(*HELM, *arguments, given=given, timeout=timeout)


def kubectl_json(*arguments: str) -> Json:
    found = json.loads(kubectl(*arguments, "-o", "json"))
    assert isinstance(found, dict)
    return found


def check_programs() -> None:
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            unavailable(f"there is no {program} on the PATH")


def image_under_test() -> str:
    """Repository and tag (or digest) of the image that has the stages, the controller and tests/toy."""
    return _image(IMAGE_VARIABLE, "test")


def controller_image() -> str:
    """The controller's own image, as users have it."""
    return _image(CONTROLLER_VARIABLE, "controller")


def _image(variable: str, target: str) -> str:
    named = os.environ.get(variable, "")
    if not named:
        unavailable(f"{variable} names no image: the Dockerfile's target `{target}`, where the cluster can pull it")
    return named


def await_(condition: Callable[[], Any], within: float, what: str, every: float = 0.3) -> Any:
    """The first true answer; what cannot be asked meanwhile is asked again."""
    end = time.monotonic() + within
    last: object = None
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # an API server or a store that is away: part of what is tested
            last = error
        time.sleep(every)
    raise AssertionError(f"waited {within:.0f} s for {what}" + (f"; last: {last}" if last else ""))


class Forward:
    """A port of this machine that leads to a Service, connected again whenever its pod was replaced."""

    def __init__(self, namespace: str, service: str, port: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._command = [*KUBECTL, "port-forward", "-n", namespace, f"svc/{service}", f"{self.port}:{port}"]
        self._closed = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        await_(self._open, START_S, f"a connection to {service}")

    def restart(self) -> None:
        """Connects anew: kubectl holds on to a pod that is gone until somebody uses the connection."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        self._closed.set()
        self.restart()
        self._thread.join(10)

    def _open(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        return True

    def _keep(self) -> None:
        while not self._closed.is_set():
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._process.wait()
            time.sleep(0.3)


def without_docker(why: str) -> NoReturn:
    """Skips what only a cluster of this machine can be asked; `make kind-test` requires all of it."""
    missing("docker", why)


def kind_node(node: str) -> str:
    """The Docker container that is this node; where it is none, faults of the machine itself cannot be made."""
    if shutil.which("docker") is None or node not in run("docker", "ps", "--format", "{{.Names}}").split():
        without_docker(f"{node} is no kind node of this machine: its processes cannot be reached")
    return node


def in_node(node: str, script: str) -> str:
    return run("docker", "exec", kind_node(node), "sh", "-c", script)
