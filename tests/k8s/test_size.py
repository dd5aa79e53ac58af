"""No object of a run comes near etcd's limit, however many shards it has."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from flow.decide import Decision, Failure, State
from flow.graph import build
from k8s import names
from k8s.run import MOST_RERUNS, parse_run
from k8s.status import Seen, of_round
from tests.k8s.builders import all_shards, job, some_shards
from tests.k8s.test_run import STORE, trun

ETCD_LIMIT = 1_500_000  # bytes of one request: etcd's default is 1.5 MiB
AT_MOST = ETCD_LIMIT // 2  # room for managedFields, which repeat every key that was written

ANNOTATIONS_LIMIT = 256 * 1024


def size(value: Any) -> int:
    return len(json.dumps(value).encode())


def worst_status(completions: int) -> dict[str, Any]:
    """A Job's status when every second index has failed: nothing that the intervals could join."""
    odd = ",".join(map(str, range(1, completions, 2)))
    even = ",".join(map(str, range(0, completions, 2)))
    conditions = [{"type": "Failed", "status": "True", "reason": "x" * 100, "message": "x" * 1000}] * 4
    uids = ["6f1c0f1e-52c5-4a8b-9d35-0d4f5b0c8a11"] * 500  # pods not yet counted; the Job controller keeps at most 500
    return {
        "completedIndexes": even,
        "failedIndexes": odd,
        "conditions": conditions,
        "uncountedTerminatedPods": {"succeeded": uids, "failed": uids},
    }


@pytest.mark.parametrize("shards", [1, 10_000, 100_000])
def test_a_job_is_small_for_any_number_of_shards(shards: int) -> None:
    manifest = job({"pods": 1}, stage="influence", shards=all_shards(shards))
    assert size(manifest) < 10_000
    assert size(manifest | {"status": worst_status(shards)}) < AT_MOST


@pytest.mark.parametrize("step", [2, 7, 1000])
def test_a_job_that_retries_scattered_shards_keeps_to_the_limit_of_annotations(step: int) -> None:
    manifest = job(stage="influence", shards=some_shards(100_000, *range(0, 100_000, step)))
    annotations = manifest["metadata"]["annotations"]
    assert size(annotations) < ANNOTATIONS_LIMIT
    assert (names.ANNOTATION_SHARDS in annotations) is (step > 2)


def test_a_run_of_the_most_nodes_whose_every_shard_failed_is_small() -> None:
    shards = 10_000
    asked = [{"id": f"{'x' * 55}-{number}", "node": "it10.influence"} for number in range(MOST_RERUNS)]
    obj = trun({"iterations": 10, "compare": ["self-instruct"], "run": {"shards": {"influence": shards}}}, rerun=asked)
    run = parse_run(obj, STORE)
    nodes = list(build(run.recipe).nodes)
    assert len(nodes) > 90
    failures = tuple(Failure("it1.influence", shard, 70, "x" * 5000) for shard in range(shards))
    seen = Seen(
        Decision((), dict.fromkeys(nodes, State.FAILED), failures, ended=True),
        shards=dict.fromkeys(nodes, (shards - 1, shards)),
        attempts=dict.fromkeys(nodes, 99),
        requests=tuple(each.id for each in run.rerun),
    )
    status = of_round({}, 1, STORE, seen, datetime.now(UTC))
    assert [each["name"] for each in status["nodes"]] == nodes
    assert size(obj | {"status": status}) < AT_MOST
