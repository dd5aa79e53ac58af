"""Jobs as rendered: names, retries, gangs, queues; what all pods have in common."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from k8s.render import Manifest, is_gang, render_service
from stages.contract.errors import ExitCode
from tests.k8s.builders import RUN, SETTINGS, all_shards, job, some_shards

LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1035, as a Service's name must be


def pod(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found


def container(manifest: Manifest) -> Manifest:
    found: Manifest = pod(manifest)["containers"][0]
    return found


def action(manifest: Manifest, code: int = 0, condition: str = "") -> str:
    """What the Job controller does about a pod that ended so: the first rule that fits."""
    for rule in manifest["spec"]["podFailurePolicy"]["rules"]:
        if any(each["type"] == condition for each in rule.get("onPodConditions", [])):
            return str(rule["action"])
        on = rule.get("onExitCodes")
        if on and code and (code in on["values"]) == (on["operator"] == "In"):
            return str(rule["action"])
    raise AssertionError("no rule fits")


@pytest.mark.parametrize(
    ("run", "node"),
    [
        ("tailor", "prepare"),
        ("a" * 40, "self-instruct.instructions"),
        ("8b", "it10.influence"),
        ("a-" * 19 + "a", "it1.dpo"),
    ],
)
def test_a_name_leaves_room_for_an_index_and_starts_with_a_letter(run: str, node: str) -> None:
    name = job(run=replace(RUN, name=run), node=node)["metadata"]["name"]
    assert LABEL.fullmatch(name) and len(f"{name}-99999") <= 63
    assert f"-{node.replace('.', '-')}-" in name


def test_the_name_is_another_one_for_another_spec_only() -> None:
    first = job()["metadata"]["name"]
    assert job()["metadata"]["name"] == first
    others = [
        job({"cpu": 2}),
        job(attempt=2),
        job(run=replace(RUN, uid="another")),
        job(settings=replace(SETTINGS, image="other")),
        job(settings=replace(SETTINGS, store="s3://other")),
        job(shards=all_shards(2)),
    ]
    assert len({first, *(each["metadata"]["name"] for each in others)}) == 1 + len(others)


def test_job_pods_and_service_carry_the_labels_and_the_job_its_hash() -> None:
    manifest = job({"pods": 2, "queue": "research"}, stage="dpo", attempt=3)
    labels = {
        "app.kubernetes.io/managed-by": "montessori",
        "montessori.dev/run": "tailor",
        "montessori.dev/node": "it1.dpo",
        "montessori.dev/attempt": "3",
    }
    assert manifest["metadata"]["labels"] == labels | {"kueue.x-k8s.io/queue-name": "research"}
    assert manifest["spec"]["template"]["metadata"]["labels"] == labels
    assert render_service(manifest)["metadata"]["labels"] == labels
    assert manifest["metadata"]["name"].endswith(manifest["metadata"]["annotations"]["montessori.dev/spec-hash"])


def test_a_run_owns_its_jobs_and_services() -> None:
    manifest = job({"pods": 2}, stage="dpo")
    for each in (manifest, render_service(manifest)):
        (owner,) = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("TailoringRun", RUN.name, RUN.uid)


def test_the_uri_of_the_task_is_all_that_a_container_is_told() -> None:
    told = container(job(stage="influence", attempt=2, shards=some_shards(64, 3, 7)))
    assert told["command"] + told["args"] == [
        "python", "-m", "stages", "s3://montessori/team/runs/tailor/tasks/it1.influence-2.json",
    ]  # fmt: skip
    assert told["envFrom"] == [{"secretRef": {"name": "montessori-store"}}]


def test_what_kubernetes_would_expand_is_taken_literally() -> None:
    told = container(job(settings=replace(SETTINGS, store="s3://$(AWS_SECRET_ACCESS_KEY)/x")))
    assert told["args"][0].startswith("s3://$$(AWS_SECRET_ACCESS_KEY)/x")


def test_with_workload_identity_no_secret_is_named() -> None:
    manifest = job(settings=replace(SETTINGS, store_secret=""))
    assert "envFrom" not in container(manifest) and "secret" not in str(manifest).lower()


@pytest.mark.parametrize("pods", [{}, {"gpus": 8, "shm": "1Gi"}, {"pods": 2}, {"spot": True, "queue": "q"}])
def test_every_pod_meets_the_restricted_standard_and_has_no_token(pods: dict[str, Any]) -> None:
    manifest = job(pods, stage="dpo")
    spec, security = pod(manifest), container(manifest)["securityContext"]
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ExitCode.BAD_SETTINGS, "FailJob"),
        (ExitCode.GATE, "FailJob"),
        (ExitCode.BAD_DATA, "FailIndex"),
        (ExitCode.OUT_OF_MEMORY, "FailIndex"),
        (137, "FailIndex"),
        (ExitCode.STORE, "Count"),
        (ExitCode.BUG, "Count"),
        (ExitCode.INTERRUPTED, "Count"),
        (1, "Count"),
    ],
)
def test_each_exit_code_has_its_action(code: int, expected: str) -> None:
    assert action(job(shards=all_shards(4), stage="influence"), code=int(code)) == expected


def test_a_disruption_costs_no_retry_whatever_the_code() -> None:
    assert action(job(), code=64, condition="DisruptionTarget") == "Ignore"


@pytest.mark.parametrize(("shards", "retries", "per_index"), [(1, 3, 0), (64, 3, 1), (64, 0, 0)])
def test_a_job_tries_an_index_again_only_beside_others(shards: int, retries: int, per_index: int) -> None:
    spec = job(run=replace(RUN, retries=retries), stage="influence", shards=all_shards(shards))["spec"]
    assert spec["backoffLimitPerIndex"] == per_index
    assert spec["podReplacementPolicy"] == "Failed"


def test_failed_shards_alone_make_as_many_completions() -> None:
    spec = job(stage="influence", attempt=2, shards=some_shards(64, 3, 7, 41))["spec"]
    assert (spec["completions"], spec["parallelism"], spec["maxFailedIndexes"]) == (3, 3, 3)


@pytest.mark.parametrize(("shards", "failed"), [(1, 1), (8, 8), (64, 8), (1000, 100), (100_000, 10_000)])
def test_a_job_ends_early_once_a_tenth_of_many_shards_failed(shards: int, failed: int) -> None:
    spec = job(stage="influence", shards=all_shards(shards))["spec"]
    assert spec["maxFailedIndexes"] == failed and spec["parallelism"] <= 10_000


def test_a_training_over_pods_starts_and_ends_as_one() -> None:
    manifest = job({"pods": 4}, stage="dpo")
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (4, 4, 0)
    assert "backoffLimitPerIndex" not in spec and "maxFailedIndexes" not in spec
    assert action(manifest, condition="DisruptionTarget") == "FailJob"
    environment = {each["name"]: each["value"] for each in container(manifest)["env"]}
    assert environment["MONTESSORI_PODS"] == "4"
    assert environment["MONTESSORI_RENDEZVOUS"] == f"{name}-0.{name}:29500"
    service = render_service(manifest)
    assert is_gang(manifest) and pod(manifest)["subdomain"] == name == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}


def test_one_pod_needs_no_service() -> None:
    assert not is_gang(job(stage="dpo"))


def test_a_queue_suspends_the_job_and_takes_over_the_topology() -> None:
    manifest = job({"queue": "research", "topology": "rack", "pods": 2}, stage="dpo")
    assert manifest["spec"]["suspend"] is True
    assert manifest["spec"]["template"]["metadata"]["annotations"] == {
        "kueue.x-k8s.io/podset-required-topology": "rack"
    }
    assert "affinity" not in pod(manifest)


def test_without_a_queue_a_topology_is_pod_affinity_to_the_attempts_own_pods() -> None:
    manifest = job({"topology": "rack", "pods": 2}, stage="dpo")
    (term,) = pod(manifest)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "rack"
    assert term["labelSelector"]["matchLabels"] == manifest["spec"]["template"]["metadata"]["labels"]
    assert "suspend" not in manifest["spec"]


def test_a_finished_job_stays_for_a_day_at_least() -> None:
    assert job(settings=replace(SETTINGS, ttl_seconds=60))["spec"]["ttlSecondsAfterFinished"] == 86_400
    assert job(settings=replace(SETTINGS, ttl_seconds=604_800))["spec"]["ttlSecondsAfterFinished"] == 604_800


def test_resources_are_requests_and_limits_where_a_limit_helps() -> None:
    resources = container(job({"cpu": 8, "memory": "64Gi", "gpus": 2, "ephemeral_storage": "1Ti"}))["resources"]
    assert resources["limits"] == {"memory": "64Gi", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "2"}
    assert resources["requests"] == resources["limits"] | {"cpu": "8"}
    assert container(job())["resources"] == {}
