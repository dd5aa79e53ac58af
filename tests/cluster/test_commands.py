"""What `montessori -n` does to a run in a real cluster: cancel, submit again, rerun of a shard and from a node down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cluster.faults import UnderWay
from tests.cluster.machine import RUN_S, await_, kubectl
from tests.cluster.release import MODELS, Release, undisturbed
from tests.cluster.toy import MARK

NAME = "commanded"
SIZE = {"count": 48, "times": 150}


@pytest.fixture(scope="module")
def cancelled(release: Release) -> UnderWay:
    """A run that was cancelled while both of its shards were at work."""
    run = UnderWay(release, NAME, times=SIZE["times"])
    assert "stops within seconds" in release.cli("cancel", NAME, "-n", release.namespace)
    release.ended(NAME, "Cancelled")
    return run


def commanded(release: Release, *arguments: str) -> str:
    return release.cli(*arguments, "-n", release.namespace)


def test_what_is_cancelled_is_carried_on_by_submitting_it_again(
    release: Release, cancelled: UnderWay, tmp_path: Path
) -> None:
    assert not [job for job in release.jobs(NAME) if job["status"].get("active")]
    recipe = tmp_path / "commanded.yaml"
    about = MARK + json.dumps(cancelled.graph)
    spec = release.run(NAME)["spec"]["recipe"]
    recipe.write_text(yaml.safe_dump(MODELS | {"name": NAME, "about": about, "run": spec["run"]}))
    commanded(release, "submit", str(recipe))
    cancelled.go()
    assert "Succeeded" in commanded(release, "watch", NAME)
    columns, row = kubectl("get", "trun", NAME, "-n", release.namespace).splitlines()
    assert dict(zip(columns.split(), row.split(), strict=False)).items() >= {"NAME": NAME, "PHASE": "Succeeded"}.items()
    assert release.digests(NAME) == undisturbed(tmp_path, **SIZE)
    assert cancelled.committed.items() <= cancelled.records().items(), "what was committed before was made again"


def test_one_shard_alone_is_made_again(release: Release, cancelled: UnderWay, tmp_path: Path) -> None:
    before = {job["metadata"]["name"] for job in release.jobs(NAME, "lines")}
    below = [job["metadata"]["uid"] for job in release.jobs(NAME, "again")]
    commanded(release, "rerun", "lines", "--run", NAME, "--shards", "1")
    await_(lambda: {job["metadata"]["name"] for job in release.jobs(NAME, "lines")} - before, RUN_S, "its Job")
    release.ended(NAME)
    (job,) = [each for each in release.jobs(NAME, "lines") if each["metadata"]["name"] not in before]
    assert job["spec"]["completions"] == 1, "an index map: index 0 is shard 1"
    assert [job["metadata"]["uid"] for job in release.jobs(NAME, "again")] == below, "its input is the same"
    assert release.digests(NAME) == undisturbed(tmp_path, **SIZE)


def test_a_node_and_all_below_it_are_made_again(release: Release, cancelled: UnderWay, tmp_path: Path) -> None:
    before = {job["metadata"]["uid"] for job in release.jobs(NAME)}
    commanded(release, "rerun", "lines", "--run", NAME, "--down")

    def begun() -> set[str]:
        fresh = [job for job in release.jobs(NAME) if job["metadata"]["uid"] not in before]
        return {job["metadata"]["labels"]["montessori.dev/node"] for job in fresh}

    await_(lambda: begun() == {"lines", "again"}, RUN_S, "the Jobs of both")
    release.ended(NAME)
    assert release.digests(NAME) == undisturbed(tmp_path, **SIZE)
