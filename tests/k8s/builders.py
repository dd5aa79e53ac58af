"""Small builders of what is rendered; a test names only what it is about."""

from __future__ import annotations

from typing import Any

from flow.pods import PodSettings
from k8s.render import Manifest, RenderSettings, RunRef, render_job
from stages.contract.task import Shards, Task

RUN = RunRef(name="tailor", namespace="tailoring", uid="6f1c0f1e-52c5-4a8b-9d35-0d4f5b0c8a11")
SETTINGS = RenderSettings(
    store="s3://montessori/team",
    image="registry.example/montessori:0.1.0",
    store_secret="montessori-store",
    service_account="montessori-stage",
)


def task(stage: str = "curate", node: str = "", attempt: int = 1, shards: Shards | None = None, **changes: Any) -> Task:
    mark = "5ee1" * 16
    values: dict[str, Any] = {
        "run": RUN.name,
        "node": node or f"it1.{stage}",
        "stage": stage,
        "attempt": attempt,
        "settings": {},
        "output": f"artifacts/{stage}/{mark}",
        "fingerprint": mark,
        "shards": shards or Shards(),
    }
    return Task.model_validate(values | changes)


def all_shards(count: int) -> Shards:
    return Shards(count=count, indices=tuple(range(count)))


def some_shards(count: int, *indices: int) -> Shards:
    return Shards(count=count, indices=indices)


def job(
    pods: dict[str, Any] | None = None, *, run: RunRef = RUN, settings: RenderSettings = SETTINGS, **changes: Any
) -> Manifest:
    """The Job of `task(**changes)` with these `run.pods` values."""
    return render_job(run, task(**changes), PodSettings.model_validate(pods or {}), settings)
