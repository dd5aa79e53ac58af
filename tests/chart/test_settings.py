"""What the chart tells the controller is what the controller reads."""

from __future__ import annotations

import pytest

from k8s.settings import PREFIX, ControllerSettings, from_environment
from tests.chart.conftest import CHART, Render

SCENARIOS = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
BY_POD = {"namespace", "identity"}  # from the pod's own name and place, not from the ConfigMap


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_is_valid_for_the_controller(
    render: Render, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = render(values=f"ci/{scenario}")
    (data,) = [each["data"] for each in objects if f"{PREFIX}STORE" in each.get("data", {})]
    named = {name.removeprefix(PREFIX).lower() for name in data if name.startswith(PREFIX)}
    assert named <= set(ControllerSettings.model_fields)
    for name, value in (data | {f"{PREFIX}NAMESPACE": "school"}).items():
        monkeypatch.setenv(name, value)
    settings = from_environment()
    assert settings.store.startswith("s3://")
    assert settings.pods, "a scenario's stages.pods are the cluster's defaults"
    assert named | BY_POD | {"workers"} == set(ControllerSettings.model_fields)


def test_the_secrets_for_pulling_and_the_image_reach_the_controller(
    render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = render(values="ci/gpu.yaml")
    (data,) = [each["data"] for each in objects if f"{PREFIX}STORE" in each.get("data", {})]
    for name, value in (data | {f"{PREFIX}NAMESPACE": "school"}).items():
        monkeypatch.setenv(name, value)
    settings = from_environment()
    assert settings.image_pull_secrets == ("registry",)
    assert settings.image == "registry.example.com/montessori-gpu@sha256:" + "0" * 64
    assert settings.pods["influence"].spot and settings.pods["default"].queue == "research"
    assert settings.ttl_seconds == 604800
