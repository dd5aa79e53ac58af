"""The controller as a process of its own, and what can be seen of it from outside: memory, processor time, metrics."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

from tests.support import REPOSITORY

START_S = 60.0
_HERE = build_opener(ProxyHandler({}))  # no proxy leads to this machine
_PREFIX = "MONTESSORI_CONTROLLER_"


class Gone(Exception):
    """The controller ended, or never began to work: the message has the end of its log."""


class Metrics:
    """One scrape. Samples are told apart by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples = [each for family in text_string_to_metric_families(text) for each in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name that have these labels."""
        return sum(
            each.value for each in self._samples if each.name == name and labels.items() <= dict(each.labels).items()
        )

    def requests(self) -> Counter[str]:
        """Requests to the API server by verb and resource, whatever the answer was."""
        found: Counter[str] = Counter()
        for each in self._samples:
            if each.name == "montessori_api_requests_total":
                found[f"{each.labels['verb']} {each.labels['resource']}"] += int(each.value)
        return found

    def mean(self, histogram: str) -> float:
        """The mean of a histogram's observations; 0 without any."""
        count = self.total(f"{histogram}_count")
        return self.total(f"{histogram}_sum") / count if count else 0.0

    def below(self, histogram: str, share: float) -> float:
        """The least bound of a histogram's buckets below which this share of its observations lie."""
        buckets = sorted(
            (float(each.labels["le"]), each.value) for each in self._samples if each.name == f"{histogram}_bucket"
        )
        wanted = share * self.total(f"{histogram}_count")
        return next((bound for bound, count in buckets if count >= wanted), float("inf"))


class Watched:
    """`python -m k8s` for one namespace, from its start until `close`."""

    def __init__(self, namespace: str, store: str, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        settings = {
            "NAMESPACE": namespace,
            "STORE": store,
            "IMAGE": "montessori:simulated",  # pulled by nobody
            "METRICS_PORT": str(self._port),
            "IDENTITY": "bench",
        }
        told = {f"{_PREFIX}{name}": value for name, value in settings.items()} | {"PYTHONPATH": str(REPOSITORY)}
        own = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen([sys.executable, "-m", "k8s"], env=own | told, stdout=out, stderr=out)
        end = time.monotonic() + START_S
        while not self._leads():
            if time.monotonic() > end:
                self.close()
                raise Gone(f"the controller does not begin to work: {self.log()}")
            time.sleep(0.2)

    def metrics(self) -> Metrics:
        """Raises Gone where the process is no more."""
        try:
            with _HERE.open(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
                return Metrics(answer.read().decode())
        except (URLError, OSError) as error:
            raise Gone(f"the controller does not answer ({error}): {self.log()}") from None

    def memory_mib(self) -> tuple[float, float]:
        """Resident size now and at its largest."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE))
        return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024

    def log(self, size: int = 2000) -> str:
        return self._log.read_text(errors="replace")[-size:]

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _leads(self) -> bool:
        if self._process.poll() is not None:
            raise Gone(f"the controller ended with {self._process.returncode}: {self.log()}")
        try:
            return self.metrics().total("montessori_leading") == 1
        except Gone:
            return False
