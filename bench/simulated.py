"""What docs/performance.md says of bench/cluster.py's results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bench.machine import results, table

HANDOVER = ("handover p50 s", "p95 s", "most s")
ASKED = ("GET jobs", "GET tailoringruns", "PATCH tailoringruns/status", "POST jobs", "POST events", "GET pods")


def cluster() -> Iterator[str]:
    """A section for each machine and cluster, with the parts that were measured there."""
    found: dict[str, dict[str, Any]] = {}
    for line in results("cluster"):
        known = found.setdefault(json.dumps(line | {"parts": []}, sort_keys=True), line | {"parts": []})
        known["parts"] = [*known["parts"], *line["parts"]]
    for each in found.values():
        yield (
            f"## The controller on {each['nodes']} simulated nodes\n\n"
            f"**{each['machine']}**{', the cluster on the same cores' if each['here'] else ''}: Kubernetes "
            f"{each['kubernetes']}, {each['gpus']:,} GPUs; store: {each['store']}.\n"
            "API server, etcd, scheduler and Job controller are real, and so is ours, a process beside them. Nodes\n"
            "and pods are KWOK's: a pod runs at once and ends a second later. No stage runs: bench/cluster.py commits\n"
            "each shard's results once its pod runs. Graph, tasks and Jobs are those of recipes/quickstart.yaml,\n"
            "without branches where one run has a wide Job. Handover: from a node's last result in the store to its\n"
            "successor's Job. MiB: the controller's largest resident size.\n"
        )
        parts = each["parts"]
        header = ("", "Jobs", "pods", "s", *HANDOVER, "MiB", "CPU s a minute", "s a sweep")
        yield table(header, [(_name(part), *_row(part)) for part in parts])
        yield "The controller's requests to the API server a minute, and the largest objects in bytes:\n"
        header = ("", *ASKED, "others", "TailoringRun", "Job", "task")
        yield table(header, [(_name(part), *_requests(part), *_sizes(part)) for part in parts])
        late, again = (sum(part[name] for part in parts) for name in ("late", "again"))
        if again:
            yield f"{again} attempts were made again; {late} results came after their pods' ends, as no stage's do.\n"


def _name(part: dict[str, Any]) -> str:
    if "indices" in part:
        return f"a Job of {part['indices']:,} indices"
    return f"{part['runs']} runs at once"


def _row(part: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{part['jobs']:,}",
        f"{part['pods']:,}",
        f"{part['seconds']:.0f}",
        *(f"{part['handover_s'][name]:.2f}" for name in ("p50", "p95", "most")),
        f"{part['memory_mib']['peak']}",
        f"{part['cpu_s_a_minute']:.1f}",
        f"{part['sweep_s']['mean']:.2f}",
    )


def _requests(part: dict[str, Any]) -> tuple[str, ...]:
    asked = part["requests_a_minute"]
    others = sum(count for name, count in asked.items() if name not in ASKED)
    return (*(f"{asked.get(name, 0):.0f}" for name in ASKED), f"{others:.0f}")


def _sizes(part: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{part['bytes'][name]:,}" for name in ("run", "job", "task"))
