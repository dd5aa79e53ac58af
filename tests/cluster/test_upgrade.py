"""helm upgrade, rollback, uninstall and another install, with runs there: nothing is lost and nothing is made twice."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from tests.cluster.access import fresh_namespace
from tests.cluster.faults import UnderWay
from tests.cluster.machine import START_S, Json, await_, helm, image_under_test, kubectl, kubectl_json
from tests.cluster.release import CHART, Release, values
from tests.cluster.scenarios import NOBODY


def another_chart(folder: Path, version: str) -> Path:
    """The chart as another revision would be."""
    chart = Path(shutil.copytree(CHART, folder / "chart"))
    told = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(told | {"version": version, "appVersion": version}))
    return chart


def the_same_by_digest(release: Release, pod: Json) -> str:
    """Another name of the image under test; where it was not pulled from a registry it has none."""
    found: str = pod["status"]["containerStatuses"][0]["imageID"]
    return found if found.startswith(release.image.rpartition(":")[0]) else release.image


def settled(release: Release) -> None:
    release.forward.restart()  # MinIO starts with the controller's image, and so is replaced with it
    await_(lambda: release.store.size("controller.json"), START_S, "the store")


def test_an_upgrade_and_its_rollback_while_runs_are_at_work(release: Release, tmp_path: Path) -> None:
    """Their Jobs would be other ones now: another image, another life after their end. Those that are there count.

    The other revision is this chart under another version and the image under another name: helm keeps no older one.
    """
    first = UnderWay(release, "before-the-upgrade", times=131)
    changed = values(the_same_by_digest(release, first.pod))
    changed["stages"]["ttlSeconds"] = 90_000
    command = ("upgrade", "test", str(another_chart(tmp_path, "9.9.9")), "-n", release.namespace, "-f", "-", "--wait")
    helm(*command, "--timeout", f"{START_S:.0f}s", given=json.dumps(changed), timeout=START_S + 30)
    settled(release)
    second = UnderWay(release, "after-the-upgrade", times=132)
    helm("rollback", "test", "-n", release.namespace, "--wait", "--timeout", f"{START_S:.0f}s", timeout=START_S + 30)
    settled(release)
    for run in (first, second):
        run.ends_undisturbed(tmp_path / run.name)
        jobs = {job["metadata"]["labels"]["montessori.dev/node"]: job for job in release.jobs(run.name)}
        assert len(jobs) == len(release.jobs(run.name)), "a node has one Job"
        assert [run.attempts(node) for node in ("lines", "again")] == [1, 1]
        assert jobs["lines"]["metadata"]["name"] == run.job
        assert jobs["lines"]["spec"]["ttlSecondsAfterFinished"] == (86_400 if run is first else 90_000)


@pytest.fixture
def another_kind(cluster: client.ApiClient, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The chart with the definition under another group, which no other release has; and the definition's name."""
    chart = another_chart(tmp_path, "0.1.0")
    path = chart / "files" / "tailoringruns.yaml"
    definition = yaml.safe_load(path.read_text())
    group = f"test-{uuid.uuid4().hex[:8]}.montessori.dev"
    definition["metadata"]["name"] = f"tailoringruns.{group}"
    definition["spec"]["group"] = group
    definition["spec"]["names"] |= {"shortNames": [], "categories": []}
    path.write_text(yaml.safe_dump(definition))
    try:
        yield chart, f"tailoringruns.{group}"
    finally:
        kubectl("delete", "crd", f"tailoringruns.{group}", "--ignore-not-found")


def test_definition_and_runs_outlive_the_release_and_another_one_takes_them_over(
    cluster: client.ApiClient, another_kind: tuple[Path, str]
) -> None:
    chart, kind = another_kind
    told = values(image_under_test(), crds={"install": True}, minio={"enabled": False})
    told["store"] = {"uri": "s3://bucket/store", "endpoint": NOBODY, "accessKey": "a", "secretKey": "b"}

    def install(namespace: str, *more: str) -> None:
        helm("install", "test", str(chart), "-n", namespace, "-f", "-", *more, given=json.dumps(told))

    with fresh_namespace(cluster, "montessori-old") as old, fresh_namespace(cluster, "montessori-new") as new:
        install(old)
        kubectl("wait", "--for=condition=Established", f"crd/{kind}")
        run = {
            "apiVersion": f"{kind.partition('.')[2]}/v1alpha1",
            "kind": "TailoringRun",
            "metadata": {"name": "kept"},
            "spec": {"recipe": {"teacher": {"model": "builtin:smollm2"}}},
        }
        kubectl("create", "-n", old, "-f", "-", given=json.dumps(run))
        before = kubectl_json("get", kind, "kept", "-n", old)["metadata"]["uid"]
        helm("uninstall", "test", "-n", old, "--wait")
        install(old)  # under its own name as ever
        helm("uninstall", "test", "-n", old, "--wait")
        with pytest.raises(AssertionError, match="invalid ownership metadata"):
            install(new)
        install(new, "--take-ownership")
        assert kubectl_json("get", kind, "kept", "-n", old)["metadata"]["uid"] == before
        owner = kubectl_json("get", "crd", kind)["metadata"]["annotations"]["meta.helm.sh/release-namespace"]
        assert owner == new
