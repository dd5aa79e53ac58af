"""What the operator says to the controller, by environment variables that the chart sets."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from flow.pods import PodsByStage
from k8s.render import SECONDS_PER_DAY, RenderSettings
from stages.contract.errors import bad_settings

PREFIX = "MONTESSORI_CONTROLLER_"
CONTROLLER_KEY = "controller.json"  # in the store: what `montessori plan -n` needs to know of the stages' image


class ControllerSettings(BaseSettings):
    """The controller's settings; each is read from `MONTESSORI_CONTROLLER_` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    namespace: str = Field(description="the one namespace that it looks at and works in")
    store: str = Field(description="s3://bucket/prefix: where the artifacts of all its runs lie")
    image: str = Field(description="image of the stages' pods")
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field("IfNotPresent", description="of that image")
    image_pull_secrets: tuple[str, ...] = Field((), description="names of Secrets, as a JSON list")
    store_secret: str = Field("", description="Secret with the pods' AWS_… variables; empty with workload identity")
    service_account: str = Field("default", description="of the stages' pods; its token is not mounted")
    pods: PodsByStage = Field({}, description="JSON: what `run.pods` of every recipe starts from")
    metrics_port: int = Field(8080, ge=0, description="serves /metrics, /healthz and /readyz; 0 serves none")
    interval_seconds: float = Field(10.0, gt=0, description="between two looks at everything, watch or no watch")
    ttl_seconds: int = Field(SECONDS_PER_DAY, ge=SECONDS_PER_DAY, description="how long finished Jobs and pods stay")
    identity: str = Field(default_factory=socket.gethostname, description="who holds the Lease: the pod's name")
    lease: str = Field("montessori-controller", description="name of the Lease")
    workers: int = Field(8, ge=1, description="runs that are looked at side by side")

    @field_validator("store")
    @classmethod
    def _reached_by_pods(cls, value: str) -> str:
        if not value.startswith(("s3://", "file:///")):
            raise ValueError("a store is s3://bucket/prefix (or file:///folder, where every pod mounts that folder)")
        return value.rstrip("/")

    def render(self) -> RenderSettings:
        """What rendering a Job needs of these."""
        return RenderSettings(
            store=self.store,
            image=self.image,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=self.image_pull_secrets,
            store_secret=self.store_secret,
            service_account=self.service_account,
            ttl_seconds=self.ttl_seconds,
        )


def from_environment() -> ControllerSettings:
    """The settings that the environment holds.

    Raises:
        StageError: BAD_SETTINGS naming each variable that is missing or wrong.
    """
    try:
        return ControllerSettings()  # type: ignore[call-arg]
    except ValidationError as error:
        lines = [f"{PREFIX}{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
        raise bad_settings("; ".join(lines), where="the controller's settings") from None
    except SettingsError as error:
        raise bad_settings(f"not JSON: {error}", where="the controller's settings") from None
