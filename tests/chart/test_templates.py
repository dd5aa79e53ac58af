"""What the chart makes of its values, without a cluster. tests/cluster installs it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import CHART, HelmError, Render, Rendered, find, pods
from tests.support import REPOSITORY

SCENARIOS = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
EVERYTHING = (
    "minio.enabled=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.rules.enabled=true",
    "metrics.dashboard.enabled=true",
)
# k8s.client.Client's methods, and the API's verbs.
VERBS = {name: name for name in ("get", "list", "watch", "create", "patch", "delete")} | {"replace": "update"}
# (API group, resource, verbs): what k8s/client.py is used for, and nothing else.
CONTROLLER_MAY = {
    ("montessori.dev", "tailoringruns", "get list watch"),
    ("montessori.dev", "tailoringruns/status", "patch"),
    ("batch", "jobs", "get list watch create delete"),
    ("", "services", "create"),
    ("", "pods", "list"),
    ("", "events", "create"),
    ("coordination.k8s.io", "leases", "get create update"),
}


def rules(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, " ".join(rule["verbs"]))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_renders(render: Render, scenario: str) -> None:
    names = [each["metadata"]["name"] for each in render(values=f"ci/{scenario}") if each["kind"] == "Deployment"]
    assert [name for name in names if name.endswith("-controller")]


def test_the_controller_may_do_exactly_what_it_does(render: Render) -> None:
    objects = render(*EVERYTHING)
    assert rules(find(objects, "Role", "m-controller")) == CONTROLLER_MAY


def asked_of_the_api() -> set[tuple[str, str]]:
    """(resource, verb) of every call of a Client in the modules that a controller consists of."""
    found: set[tuple[str, str]] = set()
    open_, seen = ["k8s.__main__"], set[str]()
    while open_:
        module = open_.pop()
        path = REPOSITORY / (module.replace(".", "/") + ".py")
        if module in seen or not path.is_file():
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "k8s":
                open_ += [f"{node.module}", *(f"{node.module}.{name.name}" for name in node.names)]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                verb, of = node.func.attr, ast.unparse(node.func.value)
                if of.rpartition(".")[2].strip("_") == "client" and verb in VERBS:
                    words = [ast.unparse(each).strip("'") for each in node.args]
                    resource = words[0].replace("names.PLURAL", "tailoringruns") + ("/status" * ("status" in words))
                    found.add((resource, VERBS[verb]))
    return found


def test_the_controller_asks_for_what_it_may_and_may_what_it_asks_for() -> None:
    asked = asked_of_the_api()
    assert ("resource", "watch") in asked  # the one variable: both kinds that are watched
    watched = {("tailoringruns", "watch"), ("jobs", "watch")}
    allowed = {(resource, verb) for _, resource, verbs in CONTROLLER_MAY for verb in verbs.split()}
    assert asked - {("resource", "watch")} | watched == allowed


def test_no_rule_reads_secrets_runs_commands_in_pods_or_leaves_the_namespace(render: Render) -> None:
    objects = render(*EVERYTHING)
    assert not [each for each in objects if each["kind"].startswith("ClusterRole")]
    for role in (each for each in objects if each["kind"] == "Role"):
        assert role["metadata"]["namespace"] == "school"
        for group, resource, verbs in rules(role):
            assert "*" not in group + resource + verbs
            assert resource not in ("secrets", "pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token")


def test_only_the_controller_has_a_token(render: Render) -> None:
    objects = render(*EVERYTHING)
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert accounts and all(each["automountServiceAccountToken"] is False for each in accounts)
    with_token = [spec["containers"][0]["name"] for spec in pods(objects) if spec["automountServiceAccountToken"]]
    assert with_token == ["controller"]
    bound = [(each["subjects"], each["roleRef"]["name"]) for each in objects if each["kind"] == "RoleBinding"]
    assert bound == [
        ([{"kind": "ServiceAccount", "name": "m-controller", "namespace": "school"}], "m-controller"),
    ]


def test_every_pod_is_restricted_with_a_read_only_root(render: Render) -> None:
    found = pods(render(*EVERYTHING))
    assert len(found) == 3  # controller, MinIO, the test
    for spec in found:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def policy(objects: Rendered, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = find(objects, "NetworkPolicy", name)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    return spec


def networks(spec: dict[str, Any]) -> list[tuple[dict[str, Any], list[int]]]:
    """(ipBlock, ports) of a policy's egress."""
    return [
        (peer["ipBlock"], [port["port"] for port in rule["ports"]])
        for rule in spec["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]


def test_stages_reach_the_store_outside_but_no_private_network(render: Render) -> None:
    # Rendered and validated only: kind's network accepts a NetworkPolicy and does not enforce it.
    objects = render('store.uri="s3://bucket/store"')
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
    stages = policy(objects, "m-stages")
    assert stages["podSelector"] == {"matchLabels": {"app.kubernetes.io/managed-by": "montessori"}}
    assert networks(stages) == [({"cidr": "0.0.0.0/0", "except": private}, [443])]
    assert ({"cidr": "0.0.0.0/0"}, [443, 6443]) in networks(policy(objects, "m-controller"))


def test_a_store_inside_is_all_that_stages_reach_if_outside_is_closed(render: Render) -> None:
    objects = render("minio.enabled=true", "networkPolicies.storeCidrs=[]")
    stages = policy(objects, "m-stages")
    assert networks(stages) == []
    minio = {"app.kubernetes.io/name": "montessori-minio", "app.kubernetes.io/instance": "m"}
    assert {"podSelector": {"matchLabels": minio}} in [peer for rule in stages["egress"] for peer in rule["to"]]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "store.uri is missing: give s3://BUCKET/PREFIX, or minio.enabled=true"),
        (('store.uri="http://bucket"',), "store.uri"),
        (('store.uri="s3://bucket"', 'store.accessKey="key"'), "store.secretKey is missing"),
        (('store.urI="s3://bucket"',), "urI"),
        (('store.uri="s3://bucket"', 'stages.flavor="tpu"'), "flavor"),
        (('store.uri="s3://bucket"', 'stages.image.digest="latest"'), "digest"),
        (('store.uri="s3://bucket"', "stages.ttlSeconds=60"), "ttlSeconds"),
    ],
)
def test_a_wrong_value_is_refused_by_name(render: Render, settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(HelmError, match=said):
        render(*settings)


def test_keys_are_in_the_secret_and_nowhere_else(render: Render) -> None:
    objects = render('store.uri="s3://bucket"', 'store.accessKey="AKIDKEY"', 'store.secretKey="hush-hush"')
    secret = find(objects, "Secret", "m-store")
    assert secret["stringData"] == {
        "AWS_ACCESS_KEY_ID": "AKIDKEY",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_REGION": "us-east-1",
    }
    others = json.dumps([each for each in objects if each["kind"] != "Secret"])
    assert "AKIDKEY" not in others and "hush-hush" not in others


def test_a_secret_of_yours_is_used_as_it_is(render: Render) -> None:
    objects = render('store.uri="s3://bucket"', 'store.existingSecret="mine"')
    assert not [each for each in objects if each["kind"] == "Secret"]
    assert find(objects, "ConfigMap", "m-controller")["data"]["MONTESSORI_CONTROLLER_STORE_SECRET"] == "mine"
    assert {"secretRef": {"name": "mine"}} in pods(objects)[0]["containers"][0]["envFrom"]


def test_with_a_cloud_identity_there_are_no_keys(render: Render) -> None:
    role = '{"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/m"}'
    objects = render('store.uri="s3://bucket"', f"stages.serviceAccount.annotations={role}", 'store.region="eu-west-1"')
    assert find(objects, "Secret", "m-store")["stringData"] == {"AWS_REGION": "eu-west-1"}
    assert find(objects, "ServiceAccount", "m-stages")["metadata"]["annotations"] == json.loads(role)


def test_a_digest_wins_over_a_tag(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    objects = render('store.uri="s3://bucket"', f'stages.image.digest="{digest}"', 'stages.image.tag="x"')
    image = find(objects, "ConfigMap", "m-controller")["data"]["MONTESSORI_CONTROLLER_IMAGE"]
    assert image == f"montessori-gpu@{digest}"


def test_the_definition_is_upgraded_with_the_release_and_outlives_it(render: Render) -> None:
    crd = find(render("minio.enabled=true"), "CustomResourceDefinition", "tailoringruns.montessori.dev")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    source = yaml.safe_load((CHART / "files/tailoringruns.yaml").read_text())
    assert crd["spec"] == source["spec"]
    assert not (CHART / "crds").exists()  # helm would install that, and never upgrade it


def test_a_new_version_of_the_chart_alone_restarts_no_pod(render: Render) -> None:
    deployments = [each for each in render(*EVERYTHING) if each["kind"] == "Deployment"]
    assert len(deployments) == 2
    for each in deployments:
        told = set(each["spec"]["template"]["metadata"]["labels"])
        assert not told & {"helm.sh/chart", "app.kubernetes.io/version"}


def test_no_object_has_another_namespace(render: Render) -> None:
    for each in render(*EVERYTHING):
        if each["kind"] != "CustomResourceDefinition":
            assert each["metadata"]["namespace"] == "school", each["kind"]


def test_the_dashboard_asks_for_metrics_that_there_are(render: Render) -> None:
    found = find(render(*EVERYTHING), "ConfigMap", "m-dashboard")
    panels = json.loads(found["data"]["montessori.json"])["panels"]
    assert len(panels) > 5
    source = Path(CHART.parents[1] / "k8s/metrics.py")
    if source.is_file():
        import re

        known = set(re.findall(r'"(montessori_\w+)"', source.read_text()))
        asked = {
            re.sub(r"_(total|bucket)$", "", name)
            for panel in panels
            for target in panel["targets"]
            for name in re.findall(r"\bmontessori_\w+", target["expr"])
        }
        assert asked <= known
