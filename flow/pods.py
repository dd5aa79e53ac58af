"""`run.pods` of a recipe: what the pods of each stage ask of a cluster. A local run does not read it.

Nothing here changes what a stage makes, so none of it enters a fingerprint. Nor can it name an image, a command, an
environment variable, a volume, a service account or a security context: those are the operator's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flow.mistakes import nearest
from stages.contract.catalog import STAGES, spec

DEFAULT = "default"
GPU_RESOURCE = "nvidia.com/gpu"
MOST_PODS_AT_ONCE = 10_000  # Kubernetes allows no more once a Job has over 100,000 indices

# The forms that Kubernetes accepts (apimachinery: validation.go, resource/quantity.go), all anchored by fullmatch.
_QUANTITY = re.compile(r"(\d{1,15}(\.\d{1,9})?)(m|k|[MGTPE]|[KMGTPE]i|[eE]\d{1,2})?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS_PART = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_DNS_PART}(\.{_DNS_PART})*")


def _quantity(value: Any) -> Any:
    """An amount as Kubernetes writes it; YAML reads `cpu: 8` as a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:g}" if isinstance(value, float) else str(value)
    if not isinstance(value, str) or not (found := _QUANTITY.fullmatch(value)) or not float(found[1]):
        raise ValueError("expected an amount as Kubernetes writes it, such as 4, 500m or 16Gi")
    return value


def _qualified(value: str) -> str:
    prefix, slash, name = value.rpartition("/")
    if not _LABEL.fullmatch(name) or (slash and (len(prefix) > 253 or not _DNS_NAME.fullmatch(prefix))):
        raise ValueError("expected a name such as gpu or example.com/gpu")
    return value


def _label_value(value: str) -> str:
    if value and not _LABEL.fullmatch(value):
        raise ValueError("expected a label's value: at most 63 letters, digits, dots, dashes and underscores")
    return value


def _dns_name(value: str) -> str:
    if len(value) > 253 or not _DNS_NAME.fullmatch(value):
        raise ValueError("expected the name of a Kubernetes object: lower-case letters, digits, dashes and dots")
    return value


def _domained(value: str) -> str:
    """An extended resource: Kubernetes takes only names with a domain for those, and only whole numbers of them."""
    if "/" not in value or value.partition("/")[0].endswith("kubernetes.io"):
        raise ValueError("expected a device plugin's resource, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb")
    return _qualified(value)


Quantity = Annotated[str, BeforeValidator(_quantity)]
Qualified = Annotated[str, AfterValidator(_qualified)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
ExtendedResource = Annotated[str, AfterValidator(_domained)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Toleration(_Strict):
    """A taint that the pods put up with, as in a pod's own spec."""

    key: Qualified | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0, description="with NoExecute: how long it stays on such a node")

    @model_validator(mode="after")
    def _as_kubernetes_wants_it(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists has no value")
        if self.key is None and self.operator != "Exists":
            raise ValueError("without a key the operator is Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("toleration_seconds needs effect: NoExecute")
        return self


class PodSettings(_Strict):
    """What the pods of one stage ask for. Amounts are Kubernetes quantities: 4, 500m, 16Gi."""

    cpu: Quantity | None = Field(None, description="cores requested; no limit is set, idle ones can be used")
    memory: Quantity | None = Field(None, description="memory requested, which is the limit as well")
    gpus: int = Field(0, ge=0, le=64, description="accelerators of one pod")
    gpu_resource: ExtendedResource = Field(
        GPU_RESOURCE, description="the device plugin's name for one, such as nvidia.com/mig-1g.10gb"
    )
    node_selector: dict[Qualified, LabelValue] = Field({}, description="labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field((), max_length=32, description="taints that the pods put up with")
    priority_class: DnsName | None = Field(None, description="PriorityClass of the pods")
    queue: DnsName | None = Field(None, description="Kueue LocalQueue: the Job waits, suspended, for its quota")
    topology: Qualified | None = Field(
        None,
        description="a node label whose value all pods of a Job shall share, such as a rack or an NVLink domain: "
        "by Kueue where there is a queue, else by pod affinity",
    )
    parallelism: int | None = Field(
        None, ge=1, le=MOST_PODS_AT_ONCE, description="shards worked on at once; all of them where not given"
    )
    pods: int = Field(
        1, ge=1, le=1024, description="pods of one training (warmup, dpo, sft), started and ended together"
    )
    shm: Quantity | None = Field(None, description="most of /dev/shm, which counts as memory of the pod")
    ephemeral_storage: Quantity | None = Field(None, description="local disk: models, scratch files, logs")
    max_runtime_seconds: int | None = Field(
        None, ge=60, le=31_536_000, description="then a pod is stopped; another goes on where it was"
    )
    spot: bool = Field(False, description="prefer spot nodes of GKE, EKS, AKS or Karpenter, tolerating their taints")


def check_pods(value: Mapping[str, PodSettings]) -> dict[str, PodSettings]:
    """Refuses a stage that does not exist, and several pods for a stage that is no training (ValueError)."""
    for stage, settings in value.items():
        if stage not in (DEFAULT, *STAGES):
            raise ValueError(f"there is no stage {stage!r}{nearest(stage, (DEFAULT, *STAGES))}")
        if settings.pods > 1 and (stage == DEFAULT or spec(stage).launch != "torchrun"):
            trainings = ", ".join(each for each in STAGES if spec(each).launch == "torchrun")
            raise ValueError(f"{stage}.pods: only a training runs over several pods: {trainings}")
    return dict(value)


PodsByStage = Annotated[dict[str, PodSettings], AfterValidator(check_pods)]


def pods_for(stage: str, *layers: Mapping[str, PodSettings]) -> PodSettings:
    """A stage's pods: of each layer its `default`, then its own entry, later ones winning key by key.

    Args:
        stage: the stage's name; dotted ones have the defaults.
        layers: the cluster's settings, then the recipe's.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name in (DEFAULT, stage):
            if name in layer:
                merged |= layer[name].model_dump(exclude_unset=True)
    return PodSettings.model_validate(merged)
