"""`python -m k8s`: the controller. Everything is said by environment variables, which the chart sets."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from flow.graph import Graph, build
from flow.recipe import RecipeBase
from k8s.client import Client, HttpTransport
from k8s.controller import Controller
from k8s.lease import RENEW_S, Lease
from k8s.metrics import Metrics, serve
from k8s.reconcile import Tools
from k8s.settings import CONTROLLER_KEY, PREFIX, ControllerSettings, from_environment
from stages.contract.canonical import canonical_json
from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.contract.fingerprint import VERSIONS_VARIABLE
from stages.contract.logs import configure
from stages.contract.store import Store, open_store

VERSIONS_FILE_VARIABLE = f"{VERSIONS_VARIABLE}_FILE"


def main(build: Callable[[RecipeBase], Graph] = build) -> int:
    """Runs the controller until SIGTERM; returns its exit code. `build` makes a recipe's graph."""
    _arguments()
    configure()
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        settings = from_environment()
        _stage_versions()
        store = open_store(settings.store).hasty()
        return _work(settings, store, build)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)


def _work(settings: ControllerSettings, store: Store, build: Callable[[RecipeBase], Graph]) -> int:
    metrics = Metrics()
    try:
        transport = HttpTransport()
    except Exception as error:
        if type(error).__name__ != "ConfigException":
            raise
        raise bad_settings(f"no cluster: {error}", where="KUBECONFIG", hint="in a pod it needs nothing") from None
    client = Client(transport, settings.namespace, observe=metrics.request)
    lease = Lease(client, settings.lease, settings.identity)
    tools = Tools(client, store, settings.render(), settings.pods, metrics, build)
    controller = Controller(
        tools,
        metrics,
        interval_s=settings.interval_seconds,
        workers=settings.workers,
        leads=lambda: lease.held,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop())
    ended = threading.Event()
    threading.Thread(target=_hold, args=(lease, ended, controller), name="lease", daemon=True).start()
    if settings.metrics_port:
        serve(settings.metrics_port, metrics, lambda: controller.alive, lambda: controller.ready)
    structlog.get_logger().info("works", namespace=settings.namespace, store=store.uri, identity=settings.identity)
    _tell_versions(store, settings)
    controller.run()
    ended.set()
    lease.release()
    return int(ExitCode.DONE)


def _hold(lease: Lease, ended: threading.Event, controller: Controller) -> None:
    log = structlog.get_logger()
    held = False
    while not ended.is_set():
        if lease.step() != held:
            held = not held
            log.info("leads" if held else "does not lead")
            controller.wake_all()
        ended.wait(RENEW_S)


def _tell_versions(store: Store, settings: ControllerSettings) -> None:
    versions = json.loads(os.environ.get(VERSIONS_VARIABLE, "{}"))
    try:
        store.put(CONTROLLER_KEY, canonical_json({"versions": versions, "namespace": settings.namespace}))
    except StageError as error:
        structlog.get_logger().warning("the store does not answer", error=str(error))


def _stage_versions() -> None:
    """Takes the versions of the stages' packages from a file of the image, unless the environment has them."""
    path = os.environ.get(VERSIONS_FILE_VARIABLE)
    if VERSIONS_VARIABLE not in os.environ and path:
        try:
            os.environ[VERSIONS_VARIABLE] = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise bad_settings(f"cannot be read: {error.strerror}", where=f"{VERSIONS_FILE_VARIABLE}={path}") from None


def _arguments() -> None:
    lines = [
        f"  {PREFIX}{name.upper():<22} {field.description}" for name, field in ControllerSettings.model_fields.items()
    ]
    versions = f"  {VERSIONS_FILE_VARIABLE}  versions of the packages in the stages' image (JSON)"
    argparse.ArgumentParser(
        prog="python -m k8s",
        description="The controller: carries out the TailoringRuns of one namespace as Jobs.",
        epilog="environment:\n" + "\n".join([*lines, versions]) + "\n  AWS_…  keys and endpoint of the store",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


if __name__ == "__main__":
    sys.exit(main())
