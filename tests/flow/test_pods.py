"""`run.pods`: what is refused and with which words, how layers merge, and that no result depends on it."""

from __future__ import annotations

from typing import Any

import pytest

from flow.graph import build
from flow.pods import PodSettings, check_pods, pods_for
from flow.recipe import RecipeBase, check_recipe
from stages.contract.catalog import spec
from stages.contract.errors import StageError
from stages.contract.fingerprint import fingerprint
from tests.flow.test_recipe import RECIPES, SMALL


def recipe(pods: dict[str, Any]) -> RecipeBase:
    return check_recipe({**SMALL, "run": {"pods": pods}}, {}, where="test")


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        ({"influense": {}}, "there is no stage 'influense'; did you mean 'influence'?"),
        ({"influence": {"gpu": 1}}, "run.pods.influence.gpu: unknown key; did you mean 'gpus'?"),
        ({"dpo": {"tolerations": [{"kye": "a"}]}}, "run.pods.dpo.tolerations.0.kye: unknown key; did you mean 'key'?"),
        ({"default": {"memory": "16 GB"}}, "run.pods.default.memory: expected an amount as Kubernetes writes it"),
        ({"default": {"cpu": 0}}, "run.pods.default.cpu: expected an amount"),
        ({"default": {"cpu": True}}, "run.pods.default.cpu: expected an amount"),
        ({"default": {"memory": "1Gi\n"}}, "run.pods.default.memory: expected an amount"),
        ({"dpo": {"gpus": -1}}, "run.pods.dpo.gpus"),
        ({"dpo": {"gpu_resource": "gpu"}}, "run.pods.dpo.gpu_resource: expected a device plugin's resource"),
        ({"dpo": {"gpu_resource": "kubernetes.io/memory"}}, "expected a device plugin's resource"),
        ({"dpo": {"node_selector": {"a b": "c"}}}, "run.pods.dpo.node_selector"),
        ({"dpo": {"node_selector": {"pool": "a/b"}}}, "expected a label's value"),
        ({"dpo": {"queue": "Research"}}, "run.pods.dpo.queue: expected the name of a Kubernetes object"),
        ({"dpo": {"tolerations": [{"operator": "Exists", "value": "x"}]}}, "operator Exists has no value"),
        ({"dpo": {"tolerations": [{"value": "x"}]}}, "without a key the operator is Exists"),
        ({"dpo": {"tolerations": [{"key": "a", "toleration_seconds": 3}]}}, "needs effect: NoExecute"),
        ({"influence": {"pods": 2}}, "only a training runs over several pods: warmup, dpo, sft"),
        ({"default": {"pods": 2}}, "only a training runs over several pods"),
        ({"dpo": {"max_runtime_seconds": 5}}, "greater than or equal to 60"),
        ({"influence": {"parallelism": 20_000}}, "less than or equal to 10000"),
    ],
)
def test_a_mistake_in_pods_is_named_with_its_key(pods: dict[str, Any], words: str) -> None:
    with pytest.raises(StageError) as caught:
        recipe(pods)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["image", "command", "args", "env", "volumes", "service_account", "serviceAccountName", "securityContext", "host"],
)
def test_what_is_the_operators_cannot_be_set(key: str) -> None:
    with pytest.raises(StageError, match=f"run.pods.dpo.{key}: unknown key"):
        recipe({"dpo": {key: "x"}})


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(8, "8"), (0.5, "0.5"), ("500m", "500m"), ("16Gi", "16Gi"), ("1e3", "1e3"), ("1.5T", "1.5T")],
)
def test_amounts_are_those_of_kubernetes(amount: Any, expected: str) -> None:
    assert PodSettings(cpu=amount).cpu == expected


def test_the_stage_wins_over_the_default_and_the_recipe_over_the_cluster() -> None:
    cluster = check_pods(
        {"default": PodSettings(cpu="1", memory="1Gi", priority_class="low"), "influence": PodSettings(gpus=1)}
    )
    own = recipe({"default": {"cpu": 2}, "influence": {"memory": "9Gi"}}).run.pods
    found = pods_for("influence", cluster, own)
    assert (found.cpu, found.memory, found.gpus, found.priority_class) == ("2", "9Gi", 1, "low")
    assert pods_for("curate", cluster, own).gpus == 0


def test_a_recipe_can_take_back_what_the_cluster_says() -> None:
    cluster = {"default": PodSettings(gpus=1, queue="research")}
    found = pods_for("prepare", cluster, {"prepare": PodSettings(gpus=0, queue=None)})
    assert (found.gpus, found.queue) == (0, None)


def test_no_fingerprint_depends_on_pods() -> None:
    plain = build(recipe({})).nodes
    asking = build(recipe({"default": {"gpus": 8, "spot": True}, "dpo": {"pods": 4}})).nodes
    for name, node in plain.items():
        inputs = {each: "0" for each in node.inputs}
        assert fingerprint(spec(node.stage), node.settings, inputs) == fingerprint(
            spec(node.stage), asking[name].settings, inputs
        )


def test_every_key_is_documented() -> None:
    text = (RECIPES.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
    section = text.partition("## What pods ask for")[2].partition("\n## ")[0]
    assert [name for name in PodSettings.model_fields if f"`{name}`" not in section] == []
