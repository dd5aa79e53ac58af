"""A real API server takes what is rendered: strict validation, the restricted standard, and the CRD's own rules."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from k8s import names
from k8s.render import Manifest
from tests.cluster.access import create
from tests.k8s.builders import RUN, all_shards, job, some_shards
from tests.k8s.golden import FOLDER

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "charts/montessori/files/tailoringruns.yaml"
PATHS = {"Job": "/apis/batch/v1/namespaces/{}/jobs", "Service": "/api/v1/namespaces/{}/services"}


def golden() -> list[Any]:
    return [
        pytest.param(manifest, id=f"{path.stem}-{manifest['kind']}")
        for path in sorted(FOLDER.glob("*.yaml"))
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def post(api: client.ApiClient, namespace: str, manifest: Manifest) -> dict[str, Any]:
    body = json.loads(json.dumps(manifest))
    body["metadata"]["namespace"] = namespace
    return create(api, PATHS[manifest["kind"]].format(namespace), body, dry_run=True)


def test_there_are_golden_files() -> None:
    assert len(golden()) >= 8


@pytest.mark.parametrize("manifest", golden())
def test_the_server_takes_a_golden_manifest(cluster: client.ApiClient, namespace: str, manifest: Manifest) -> None:
    accepted = post(cluster, namespace, manifest)
    assert accepted["metadata"]["name"] == manifest["metadata"]["name"]


def test_the_restricted_standard_has_nothing_to_say_of_a_pod(cluster: client.ApiClient, namespace: str) -> None:
    template = job({"gpus": 1, "shm": "1Gi"})["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"] | {"name": "one"},
        "spec": template["spec"] | {"serviceAccountName": "default"},
    }
    assert create(cluster, f"/api/v1/namespaces/{namespace}/pods", pod, dry_run=True)
    pod["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(ApiException) as caught:  # so the namespace does enforce it
        create(cluster, f"/api/v1/namespaces/{namespace}/pods", pod, dry_run=True)
    assert "violates PodSecurity" in str(caught.value.body)


@pytest.mark.parametrize("shards", [1, 10_000, 100_000])
def test_the_server_takes_as_many_shards_as_a_recipe_may_have(
    cluster: client.ApiClient, namespace: str, shards: int
) -> None:
    accepted = post(cluster, namespace, job(stage="influence", shards=all_shards(shards)))
    assert accepted["spec"]["completions"] == shards


def test_a_job_of_scattered_shards_is_stored(cluster: client.ApiClient, namespace: str) -> None:
    """A dry run does not reach etcd."""
    manifest = json.loads(json.dumps(job(stage="influence", shards=some_shards(100_000, *range(0, 100_000, 10)))))
    manifest["metadata"]["namespace"] = namespace
    manifest["spec"]["suspend"] = True
    stored = create(cluster, PATHS["Job"].format(namespace), manifest)
    assert stored["spec"]["completions"] == 10_000


def test_the_longest_names_are_taken_with_the_most_indices(cluster: client.ApiClient, namespace: str) -> None:
    long = job(run=replace(RUN, name="a" * 40), node="self-instruct.instructions", shards=all_shards(100_000))
    assert len(post(cluster, namespace, long)["metadata"]["name"]) == names.LONGEST_JOB_NAME


@pytest.fixture(scope="module")
def kind(cluster: client.ApiClient) -> Iterator[str]:
    """The CRD under another group, so that the installed one is left alone; returns the path of its objects."""
    document = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    group = "test.montessori.dev"
    document["metadata"]["name"] = f"{names.PLURAL}.{group}"
    document["spec"]["group"] = group
    document["spec"]["names"] |= {"shortNames": [], "categories": []}
    extensions = client.ApiextensionsV1Api(cluster)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        create(cluster, path, document)
    except ApiException as error:
        if error.status != 409:  # an earlier test was killed
            raise
    _until_established(extensions, document["metadata"]["name"])
    yield f"/apis/{group}/{names.VERSION}/namespaces/{{}}/{names.PLURAL}"
    extensions.delete_custom_resource_definition(document["metadata"]["name"])


def _until_established(extensions: client.ApiextensionsV1Api, name: str) -> None:
    for _ in range(100):
        conditions = extensions.read_custom_resource_definition_status(name).status.conditions or []
        states = {each.type: each.status for each in conditions}
        if states.get("Established") == "True":
            assert states.get("NonStructuralSchema") != "True"
            time.sleep(1)  # the handler follows the condition
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} was not established in 10 s")


def trun(name: str = "tailor", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"test.montessori.dev/{names.VERSION}",
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {"recipe": {"teacher": {"model": "builtin:smollm2"}, "anything": [1, {"at": "all"}]}, **spec},
    }


def test_the_server_takes_a_run_and_keeps_its_recipe_whole(
    cluster: client.ApiClient, namespace: str, kind: str
) -> None:
    asked = trun(rerun=[{"id": "a", "node": "it1.influence", "shards": [3, 7]}])
    taken = create(cluster, kind.format(namespace), asked, dry_run=True)
    assert taken["spec"]["recipe"] == asked["spec"]["recipe"]
    assert taken["spec"]["cancel"] is False and taken["spec"]["rerun"][0]["down"] is False


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (trun("a.b"), "a run's name has lower-case letters"),
        (trun("a" * 41), "a run's name has lower-case letters"),
        (trun(recipe={"name": "other"}), "spec.recipe.name must be metadata.name"),
        (trun(cancle=True), 'unknown field \\"spec.cancle\\"'),
        (trun(rerun=[{"id": "a", "shards": [1]}]), "shards needs the node that has them"),
        (trun(rerun=[{"id": "a", "down": True}]), "down needs the node"),
        (trun(rerun=[{"id": "a", "node": "x", "down": True, "shards": [1]}]), "give shards or down, not both"),
        (trun(rerun=[{"id": "a"}, {"id": "a"}]), "Duplicate value"),
    ],
)
def test_the_server_refuses_at_once_what_no_run_can_be(
    cluster: client.ApiClient, namespace: str, kind: str, obj: dict[str, Any], words: str
) -> None:
    with pytest.raises(ApiException) as caught:
        create(cluster, kind.format(namespace), obj, dry_run=True)
    assert words in str(caught.value.body)
