"""helm, for the chart's tests: where it is missing they are skipped, or fail if MONTESSORI_REQUIRE names helm."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.required import missing

CHART = Path(__file__).resolve().parents[2] / "charts/montessori"
OLDEST = "1.33.0"  # of the Kubernetes versions that the chart is for

Rendered = list[dict[str, Any]]
Render = Callable[..., Rendered]


class HelmError(Exception):
    """helm refuses; the message is what it printed."""


@pytest.fixture(scope="session")
def helm() -> str:
    found = shutil.which("helm")
    if found is None:
        missing("helm", "helm is not on the PATH: https://helm.sh/docs/intro/install")
    return found


@pytest.fixture(scope="session")
def render(helm: str) -> Render:
    """render("a.b=c", values="ci/kind.yaml") → the chart's objects, as release `m` in namespace `school`."""

    def rendered(*settings: str, values: str | Path | None = None) -> Rendered:
        command = [helm, "template", "m", str(CHART), "-n", "school", "--kube-version", OLDEST]
        command += ["-f", str(CHART / values)] if values else []
        command += [part for setting in settings for part in ("--set-json", setting)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise HelmError(done.stderr)
        return [each for each in yaml.safe_load_all(done.stdout) if each]

    return rendered


def find(objects: Rendered, kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name."""
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pods(objects: Rendered) -> list[dict[str, Any]]:
    """The pod specs of everything that makes pods."""
    specs = [each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "Job")]
    return specs + [each["spec"] for each in objects if each["kind"] == "Pod"]
