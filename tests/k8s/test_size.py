"""No object of a run comes near etcd's limit, however many shards it has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.k8s.builders import all_shards, job, some_shards

ETCD_LIMIT = 1_500_000  # bytes of one request: etcd's default is 1.5 MiB
AT_MOST = ETCD_LIMIT // 2  # room for managedFields, which repeat every key that was written


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


def test_which_shards_run_stands_in_the_task_and_not_in_the_job() -> None:
    few = size(job(stage="influence", shards=some_shards(100_000, 1, 5)))
    many = size(job(stage="influence", shards=some_shards(100_000, *range(0, 100_000, 7))))
    assert many - few < 20
