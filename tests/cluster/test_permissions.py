"""Who may do what, as the API server answers it: the controller, the stages, and people with the chart's Role."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from tests.chart.test_templates import CONTROLLER_MAY
from tests.cluster.machine import kubectl, kubectl_json
from tests.cluster.release import MODELS, Release
from tests.cluster.toy import MARK

READ = "get list watch"
# docs/cluster.md, "Who may do what"
PEOPLE_MAY = {
    ("montessori.dev", "tailoringruns", f"{READ} create update patch delete"),
    ("batch", "jobs", READ),
    ("", "pods", READ),
    ("", "pods/log", READ),
    ("", "events", READ),
    ("", "configmaps", "get list"),
    ("coordination.k8s.io", "leases", "get list"),
}
NOBODYS = [
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("create", "", "pods", ""),
    ("create", "", "pods", "exec"),
    ("create", "", "serviceaccounts", "token"),
    ("update", "", "configmaps", ""),
    ("patch", "apps", "deployments", ""),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
]

Rules = set[tuple[str, str, str]]


def each_verb(rules: Rules) -> Rules:
    return {(group, resource, verb) for group, resource, verbs in rules for verb in verbs.split()}


def may(user: str, namespace: str) -> Rules:
    """What the server lets this user do in a namespace, beyond what it lets everybody."""

    def answered(name: str) -> Rules:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        found = json.loads(kubectl("create", "--as", name, "--raw", path, "-f", "-", given=json.dumps(review)))
        return {
            (group, resource, verb)
            for rule in found["status"]["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    return answered(user) - answered(f"system:serviceaccount:{namespace}:somebody-else")


def account(release: Release, name: str) -> str:
    assert kubectl("get", "serviceaccount", name, "-n", release.namespace)
    return f"system:serviceaccount:{release.namespace}:{name}"


@pytest.fixture(scope="module")
def alice(release: Release) -> str:
    """Somebody to whom the chart's Role is bound, by what docs/cluster.md says to type."""
    kubectl("create", "serviceaccount", "alice", "-n", release.namespace)
    kubectl(
        "create", "rolebinding", "alice", "--role", "test-user", "-n", release.namespace,
        f"--serviceaccount={release.namespace}:alice",
    )  # fmt: skip
    return account(release, "alice")


def test_the_controller_may_do_what_its_role_says_and_nothing_elsewhere(release: Release, namespace: str) -> None:
    controller = account(release, "test-controller")
    assert may(controller, release.namespace) == each_verb(CONTROLLER_MAY)
    assert may(controller, namespace) == may(controller, "kube-system") == set()


def test_the_stages_may_do_nothing(release: Release, namespace: str) -> None:
    stages = account(release, "test-stages")
    assert may(stages, release.namespace) == may(stages, namespace) == set()


def test_people_may_do_what_the_documents_say(release: Release, alice: str, namespace: str) -> None:
    assert may(alice, release.namespace) == each_verb(PEOPLE_MAY)
    assert may(alice, namespace) == set()


def test_none_of_them_reads_a_secret_or_comes_to_more_rights(
    release: Release, alice: str, namespace: str, cluster: client.ApiClient
) -> None:
    """Asked one by one as well: what a server lists of rules may leave out those of a further authorizer."""
    authorization = client.AuthorizationV1Api(cluster)

    def allowed(user: str, where: str, verb: str, group: str, resource: str, subresource: str) -> bool:
        asked = {"namespace": where, "verb": verb, "group": group, "resource": resource, "subresource": subresource}
        review = {"spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": asked}}
        return bool(authorization.create_subject_access_review(review).status.allowed)

    users = [account(release, "test-controller"), account(release, "test-stages"), alice]
    for user in users:
        for where in (release.namespace, namespace):
            assert not [right for right in NOBODYS if allowed(user, where, *right)], user
    assert allowed(users[0], release.namespace, "create", "batch", "jobs", ""), "so the server does answer yes"
    assert not allowed(users[0], namespace, "create", "batch", "jobs", "")
    assert not allowed(alice, release.namespace, "patch", "montessori.dev", "tailoringruns", "status")


def test_the_role_for_people_is_enough_for_the_commands(release: Release, alice: str, tmp_path: Path) -> None:
    config = kubectl_json("config", "view", "--minify", "--raw", "--flatten")
    token = kubectl("create", "token", "alice", "-n", release.namespace).strip()
    config["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    recipe = tmp_path / "hers.yaml"
    recipe.write_text(yaml.safe_dump(MODELS | {"name": "hers", "about": MARK + '{"count": 12, "times": 140}'}))

    def montessori(*arguments: str) -> str:
        return release.cli(*arguments, "-n", release.namespace, KUBECONFIG=str(kubeconfig))

    assert "submitted" in montessori("submit", str(recipe))
    assert "Succeeded" in montessori("watch", "hers")
    assert json.loads(montessori("status", "hers", "-o", "json"))["phase"] == "Succeeded"
    assert "chunk 0 of shard 0" in montessori("logs", "lines", "--run", "hers")
    assert "is not running" in montessori("cancel", "hers")
    checks = {each["name"]: each["level"] for each in json.loads(montessori("doctor", "-o", "json"))}
    assert checks == {"cluster": "ok", "controller": "ok", "store": "ok"}
