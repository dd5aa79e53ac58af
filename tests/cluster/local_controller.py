"""A controller as a process of this machine: beside the one in the cluster, or for a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.release import Release
from tests.support import REPOSITORY


class LocalController:
    """Runs until `stop`; its log is a file."""

    def __init__(self, release: Release, log: Path, kubeconfig: Path | None = None, **settings: str) -> None:
        told = release.controller_environment() | release.environment
        told |= {
            "MONTESSORI_CONTROLLER_NAMESPACE": release.namespace,
            "MONTESSORI_CONTROLLER_LEASE": "second",
            "MONTESSORI_CONTROLLER_IDENTITY": "test-process",
            "MONTESSORI_CONTROLLER_METRICS_PORT": "0",
            "MONTESSORI_CONTROLLER_INTERVAL_SECONDS": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        told |= {f"MONTESSORI_CONTROLLER_{name.upper()}": value for name, value in settings.items()}
        told.pop("MONTESSORI_STAGE_VERSIONS_FILE", None)  # the packages are installed here
        if kubeconfig is not None:
            told["KUBECONFIG"] = str(kubeconfig)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.toy"], env={**os.environ, **told}, stdout=out, stderr=out
            )
        self._log = log

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        self._process.kill()

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
