"""Manifests of a representative set of runs, kept in golden/ so that a change of what is rendered is seen in review.

python -m tests.k8s.golden     # writes them again; look at the diff
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from k8s.render import Manifest, is_gang, render_service
from tests.k8s.builders import SETTINGS, all_shards, job, some_shards

FOLDER = Path(__file__).with_name("golden")


def manifests() -> dict[str, list[Manifest]]:
    """What each file of golden/ holds."""
    gpu = {"cpu": 8, "memory": "64Gi", "gpus": 1, "shm": "8Gi", "ephemeral_storage": "200Gi"}
    jobs = {
        "plain": job(stage="curate"),
        "sharded-influence": job(gpu | {"parallelism": 16}, stage="influence", shards=all_shards(64)),
        "sharded-incontext": job(gpu | {"parallelism": 16}, stage="incontext", shards=all_shards(64)),
        # A judge behind a server: many pods, each of which only waits.
        "sharded-judge": job({"cpu": "250m", "memory": "2Gi", "parallelism": 8}, stage="judge", shards=all_shards(16)),
        "retried-shards": job(gpu, stage="influence", attempt=2, shards=some_shards(64, 3, 7, 41)),
        "gang-dpo": job(gpu | {"gpus": 8, "pods": 2, "topology": "example.com/nvlink-domain"}, stage="dpo"),
        "mig": job(
            {
                "gpus": 1,
                "gpu_resource": "nvidia.com/mig-1g.10gb",
                "node_selector": {"example.com/pool": "mig"},
                "tolerations": [
                    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                    {
                        "key": "node.kubernetes.io/unreachable",
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "toleration_seconds": 30,
                    },
                ],
                "priority_class": "batch-low",
                "max_runtime_seconds": 86_400,
            },
            stage="responses",
            shards=all_shards(4),
        ),
        "kueue": job(
            gpu | {"queue": "research", "pods": 4, "topology": "cloud.google.com/gce-topology-block"}, stage="dpo"
        ),
        "spot": job(gpu | {"spot": True}, stage="influence", shards=all_shards(8)),
        "workload-identity": job(
            stage="prepare", node="prepare", settings=replace(SETTINGS, store_secret="", image_pull_secrets=("pull",))
        ),
    }
    return {name: [render_service(each), each] if is_gang(each) else [each] for name, each in jobs.items()}


def text(each: list[Manifest]) -> str:
    return yaml.safe_dump_all(each, sort_keys=False, width=1000)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, each in manifests().items():
        (FOLDER / f"{name}.yaml").write_text(text(each), encoding="utf-8")


if __name__ == "__main__":
    main()
