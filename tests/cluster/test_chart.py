"""The chart on a real cluster: every scenario of its `ci` folder, and what the API server makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client
from prometheus_client.parser import text_string_to_metric_families

from stages.contract.store.check import WORKS
from tests.cluster import scenarios
from tests.cluster.machine import check_programs, controller_image, helm, image_under_test, kubectl, kubectl_json
from tests.cluster.scenarios import NAMES, NOBODY, RELEASE, STORED, Scenarios

OPERATOR = Path(__file__).with_name("prometheus_operator.yaml")


@pytest.fixture(scope="module")
def operator_kinds(cluster: client.ApiClient) -> Iterator[None]:
    """The Prometheus Operator's kinds; where they are there, they stay."""
    check_programs()
    there = {each["metadata"]["name"] for each in kubectl_json("get", "crds")["items"]}
    documents = list(yaml.safe_load_all(OPERATOR.read_text(encoding="utf-8")))
    brought = [each for each in documents if each["metadata"]["name"] not in there]
    try:
        for each in brought:
            kubectl("create", "-f", "-", given=json.dumps(each))
            kubectl("wait", "--for=condition=Established", f"crd/{each['metadata']['name']}")
        yield
    finally:
        for each in brought:
            kubectl("delete", "crd", each["metadata"]["name"], "--ignore-not-found")


@pytest.fixture(scope="module")
def installed(operator_kinds: None) -> Iterator[Scenarios]:
    found = Scenarios(image_under_test(), controller_image())
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_server_has_each_object_as_it_was_rendered(installed: Scenarios, name: str) -> None:
    """NetworkPolicies among them: they are taken by the API server and, on kind, obeyed by nobody."""
    namespace = installed.namespace(name)
    assert installed.warnings(name) == "", "the server takes it, and says what is wrong with it"
    rendered = helm("get", "manifest", RELEASE, "-n", namespace)
    assert "kind: Deployment" in rendered
    # 0 where applying it would change nothing
    kubectl("diff", "-n", namespace, "--server-side", "--force-conflicts", "-f", "-", given=rendered)


@pytest.mark.parametrize("name", NAMES)
def test_the_controller_of_each_scenario_becomes_ready(installed: Scenarios, name: str) -> None:
    installed.wait(name)
    (deployment,) = [
        each
        for each in kubectl_json("get", "deployments", "-n", installed.namespace(name))["items"]
        if each["metadata"]["name"] == f"{installed.full_name(name)}-controller"
    ]
    assert deployment["status"]["readyReplicas"] == 1


@pytest.mark.parametrize("name", STORED)
def test_helm_test_writes_and_reads_an_object_with_the_stages_keys(installed: Scenarios, name: str) -> None:
    code, said = installed.helm_test(name)
    assert code == 0, said
    assert WORKS in said


def test_helm_test_fails_with_the_reason_where_no_store_answers(installed: Scenarios) -> None:
    code, said = installed.helm_test("keys")
    assert code != 0
    assert "does not answer" in said and NOBODY in said


@pytest.fixture(scope="module")
def worked(installed: Scenarios) -> str:
    """The namespace of scenario `monitoring`, in which a run has succeeded."""
    installed.condition("monitoring", "toy", "Complete", "Succeeded", "")
    return installed.namespace("monitoring")


def test_a_run_succeeds_under_other_names_and_ports(worked: str) -> None:
    pods = kubectl_json("get", "pods", "-l", "montessori.dev/run=toy", "-n", worked)["items"]
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"tailoring-stages"}
    volumes = [volume for pod in pods for volume in pod["spec"]["volumes"]]
    assert volumes and not [each for each in volumes if "projected" in each], "no token is in a stage's pod"


@pytest.mark.parametrize(
    ("name", "run", "kind", "reason", "words"),
    [
        (
            "keys",
            "no-store",
            "StoreReachable",
            "StoreDoesNotAnswer",
            f'Could not connect to the endpoint URL: "{NOBODY}',
        ),
        # Asked for keys is the MinIO of scenario `kind`, which trusts no role
        (
            "workload-identity",
            "no-keys",
            "StoreReachable",
            "StoreDoesNotAnswer",
            "no keys for the role of AWS_ROLE_ARN",
        ),
        ("gpu", "queued", "Progressing", "Queued", "prepare"),
        ("gpu", "no-room", "Progressing", "Unschedulable", "Insufficient nvidia.com/gpu"),
        ("gpu", "no-image", "Progressing", "ImageNotPulled", "montessori-gpu@sha256:0000"),
    ],
)
def test_a_run_says_what_its_cluster_lacks(
    installed: Scenarios, name: str, run: str, kind: str, reason: str, words: str
) -> None:
    installed.condition(name, run, kind, reason, words)


def test_a_password_that_was_made_up_outlives_an_upgrade(installed: Scenarios) -> None:
    namespace = installed.namespace("minio")
    installed.helm_test("minio")

    def password() -> Any:
        return kubectl_json("get", "secret", f"{RELEASE}-store", "-n", namespace)["data"]["AWS_SECRET_ACCESS_KEY"]

    before = password()
    helm(
        "upgrade", RELEASE, str(scenarios.CHART), "-n", namespace, "--reuse-values", "--set", "stages.ttlSeconds=90000"
    )
    assert password() == before


# Metrics


@pytest.fixture(scope="module")
def served(worked: str) -> dict[str, list[dict[str, str]]]:
    """What /metrics shows through the Service: by name of a series as it is asked for, the labels of each sample."""
    path = f"/api/v1/namespaces/{worked}/services/tailoring-metrics:metrics/proxy/metrics"
    found: dict[str, list[dict[str, str]]] = {}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    for family in text_string_to_metric_families(kubectl("get", "--raw", path)):
        for suffix in suffixes.get(family.type, ("",)):
            name = family.name + suffix
            found[name] = [each.labels for each in family.samples if each.name == name]
    return found


def expressions(namespace: str) -> list[str]:
    """Those of the dashboard and the alerts, as the server has them."""
    dashboard = kubectl_json("get", "configmap", "tailoring-dashboard", "-n", namespace)["data"]["montessori.json"]
    rules = kubectl_json("get", "prometheusrule", "tailoring", "-n", namespace)["spec"]["groups"]
    asked = [target["expr"] for panel in json.loads(dashboard)["panels"] for target in panel["targets"]]
    return asked + [rule["expr"] for group in rules for rule in group["rules"]]


def test_metrics_have_what_dashboard_and_alerts_ask_for(worked: str, served: dict[str, list[dict[str, str]]]) -> None:
    asked = expressions(worked)
    assert len(asked) > 10
    for expression in asked:
        (name,) = re.findall(r"\b(?:montessori|process)_\w+(?=\{)", expression)
        assert name in served, expression
        labels = set(re.findall(r"by \(([\w, ]+)\)", expression)[:1]) | set(re.findall(r"(\w+)!?=~?\"", expression))
        of_prometheus = {"namespace", "job"}  # it adds these to what it scrapes
        for label in {part.strip() for each in labels for part in each.split(",")} - of_prometheus:
            assert all(label in sample for sample in served[name]), expression


def test_the_monitor_selects_the_controllers_port(installed: Scenarios) -> None:
    namespace = installed.namespace("monitoring")
    monitor = kubectl_json("get", "servicemonitor", "tailoring", "-n", namespace)["spec"]
    selector = ",".join(f"{key}={value}" for key, value in monitor["selector"]["matchLabels"].items())
    (service,) = kubectl_json("get", "services", "-l", selector, "-n", namespace)["items"]
    assert [each["port"] for each in monitor["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]


def test_the_server_never_forbade_the_controller_anything(served: dict[str, list[dict[str, str]]]) -> None:
    requests = served["montessori_api_requests_total"]
    assert {each["verb"] for each in requests} >= {"GET", "POST", "PATCH"}
    assert not [each for each in requests if each["code"] in ("401", "403")]
