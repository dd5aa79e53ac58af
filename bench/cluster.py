"""The controller on a cluster whose nodes are simulated: how soon it goes on, its memory, what it asks of the API.

    KUBECONFIG=… python -m bench.cluster [--quick] [--parts few many wide] [--few N] [--many N] [--indices N]
                                         [--store s3://bucket/prefix]

few    some runs of recipes/quickstart.yaml at once: seconds from a node's last result to its successor's Job
many   many of them at once
wide   one run, without branches and measures, whose influence is an Indexed Job of 10,000 indices

Real: the API server, etcd, the scheduler, Kubernetes' Job controller; ours as a process of its own (`python -m k8s`);
the recipe's graph, tasks and Jobs. Simulated: nodes and pods, by KWOK (https://kwok.sigs.k8s.io; nodes labelled
`type=kwok`, on which a pod runs at once and ends a second later), and the stages: bench/standin.py commits a shard's
results once its pod runs. No image is pulled and no model loaded. The store is a folder unless `--store` names another.

A node's last result is when its artifact's manifest says that it was `finished`; its successor's Job is there when a
watch tells of it. Memory is the largest resident size of the controller's process.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from bench.machine import describe, save
from bench.sequenced import Failed, measured
from bench.watched import Gone
from k8s import names
from k8s.client import ApiError
from stages.contract.errors import StageError
from stages.contract.store import open_store
from tests.cluster.access import fresh_namespace
from tests.support import REPOSITORY

NODES = "type=kwok"
LIMIT_MIB, LIMIT_P95_S, LIMIT_BYTES = 200, 2.0, 1_500_000
GONE_S = 900.0
WITHOUT_GPU = ("prepare", "curate", "diversity", "aggregate", "pairs", "comparison", "report")
COLUMNS = ("part", "runs", "Jobs", "pods", "s", "p50 s", "p95 s", "MiB", "CPU s/min", "requests/min", "sweep s")


def main() -> int:
    """Print tables and a line of JSON; 1 where a limit is missed or nothing can be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; nothing is kept")
    parser.add_argument("--parts", nargs="+", choices=("few", "many", "wide"), default=["few", "many", "wide"])
    parser.add_argument("--few", type=int, help="runs of `few`; 3")
    parser.add_argument("--many", type=int, help="runs of `many`; 50, with --quick 5")
    parser.add_argument("--indices", type=int, help="indices of the influence Job of `wide`; 10,000, with --quick 20")
    parser.add_argument("--store", help="URI of a store that this machine reaches; a folder of this machine otherwise")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made in the cluster is removed on the way out
    try:
        line = measure(options)
    except (Failed, Gone, ApiError, ApiException, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: its namespace is being removed", file=sys.stderr)
        return 130
    print(json.dumps(line))
    missed = list(over_limits(line["parts"]))
    for each in missed:
        print(f"error: {each}", file=sys.stderr)
    return 1 if missed else 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Each part in a namespace of its own, one after the other; what was found, as JSON values."""
    api, version, nodes = connected()
    gpus = sum(int(each.status.allocatable.get("nvidia.com/gpu", 0)) for each in nodes)
    print(f"{describe()}, Kubernetes {version}, {len(nodes)} simulated nodes with {gpus} GPUs")
    recipe = quickstart(nodes)
    few, many = options.few or 3, options.many or (5 if options.quick else 50)
    indices = options.indices or (20 if options.quick else 10_000)
    wide = recipe | {"compare": [], "measure": False}
    wide["run"] = recipe["run"] | {"shards": {"influence": indices}}
    planned = {"few": numbered("few", few, recipe), "many": numbered("many", many, recipe), "wide": {"wide": wide}}
    line: dict[str, Any] = {
        "machine": describe(),
        "here": urlsplit(api.configuration.host).hostname in ("127.0.0.1", "localhost"),
        "kubernetes": version,
        "nodes": len(nodes),
        "gpus": gpus,
        "store": "s3" if options.store else "folder",
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = options.store or f"file://{folder}"
        for part in options.parts:
            store = open_store(f"{root}/{part}-{time.time():.0f}")
            with emptied_namespace(api, part) as namespace:
                figures = measured(part, namespace, planned[part], store)
                found.append(figures | ({"indices": indices} if part == "wide" else {}))
                if not options.quick:  # what took a quarter of an hour is kept, whatever becomes of the rest
                    save("cluster", f"{len(nodes)}-nodes-{line['store']}-{part}", line | {"parts": found[-1:]})
    print(shown(found))
    return line | {"parts": found}


def connected() -> tuple[client.ApiClient, str, list[client.V1Node]]:
    """The cluster that KUBECONFIG means, its version, and its simulated nodes, which must be there."""
    try:
        api = config.new_client_from_config()
        version = str(client.VersionApi(api).get_code(_request_timeout=10).git_version)
        nodes = client.CoreV1Api(api).list_node(label_selector=NODES).items
        kinds = client.CustomObjectsApi(api).get_api_resources(names.GROUP, names.VERSION)
    except config.ConfigException as error:
        raise Failed(f"no cluster: {error}; KUBECONFIG names one, make kind-up makes one") from None
    except (HTTPError, OSError) as error:
        raise Failed(f"the cluster of KUBECONFIG does not answer: {error}") from None
    except ApiException as error:
        if error.status != 404:
            raise Failed(f"the cluster refuses: {error.reason} (HTTP {error.status})") from None
        hint = "kubectl apply --server-side -f charts/montessori/files/tailoringruns.yaml"
        raise Failed(f"the cluster does not know TailoringRuns: {hint}") from None
    assert any(each.name == names.PLURAL for each in kinds.resources)
    if not nodes:
        hint = "https://kwok.sigs.k8s.io; the head of bench/cluster.py says what they must do"
        raise Failed(f"the cluster has no simulated nodes, which are KWOK's and labelled {NODES}: {hint}")
    return api, version, nodes


def quickstart(nodes: list[client.V1Node]) -> dict[str, Any]:
    """recipes/quickstart.yaml for pods that land on the simulated nodes and nowhere else."""
    recipe: dict[str, Any] = yaml.safe_load((REPOSITORY / "recipes" / "quickstart.yaml").read_text())
    del recipe["name"]
    key, _, value = NODES.partition("=")
    taints = {(each.key, each.effect) for node in nodes for each in node.spec.taints or ()}
    tolerations = [{"key": name, "operator": "Exists", "effect": effect} for name, effect in sorted(taints)]
    default = {"cpu": 1, "gpus": 1, "node_selector": {key: value}, "tolerations": tolerations}
    return recipe | {"run": {"pods": {"default": default, **{each: {"gpus": 0} for each in WITHOUT_GPU}}}}


def numbered(name: str, count: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """So many runs that share no node: each reads another number of reference rows."""
    reference = recipe["prepare"]["reference"]
    return {
        f"{name}-{number}": recipe
        | {"prepare": recipe["prepare"] | {"reference": reference | {"limit": reference["limit"] + number}}}
        for number in range(1, count + 1)
    }


@contextmanager
def emptied_namespace(api: client.ApiClient, part: str) -> Iterator[str]:
    """A namespace of the part's own, waited for until it is gone: removing thousands of pods keeps a cluster busy."""
    with fresh_namespace(api, f"montessori-bench-{part}") as name:
        yield name
    print(f"{part}: removing its objects", file=sys.stderr, flush=True)
    core, end = client.CoreV1Api(api), time.monotonic() + GONE_S
    while any(each.metadata.name == name for each in core.list_namespace().items):
        if time.monotonic() > end:
            raise Failed(f"the namespace {name} is not gone after {GONE_S:.0f} s")
        time.sleep(2)


def shown(parts: list[dict[str, Any]]) -> str:
    """The tables for people."""
    lines = ["  ".join(f"{each:>12}" for each in COLUMNS)]
    for each in parts:
        row = (
            each["part"], each["runs"], each["jobs"], each["pods"], each["seconds"], each["handover_s"]["p50"],
            each["handover_s"]["p95"], each["memory_mib"]["peak"], each["cpu_s_a_minute"],
            round(sum(each["requests_a_minute"].values())), each["sweep_s"]["mean"],
        )  # fmt: skip
        lines.append("  ".join(f"{value:>12,}" if isinstance(value, int) else f"{value:>12}" for value in row))
    for each in parts:
        asked = ", ".join(f"{name} {count:g}" for name, count in each["requests_a_minute"].items())
        sizes = ", ".join(f"{name} {size:,}" for name, size in each["bytes"].items())
        lines.append(f"{each['part']}: requests a minute: {asked}")
        lines.append(
            f"{each['part']}: bytes: {sizes}; attempts again: {each['again']}, results too late: {each['late']}"
        )
    return "\n".join(lines)


def over_limits(parts: list[dict[str, Any]]) -> Iterator[str]:
    """What misses its limit: memory and objects' sizes in every part, the handover with few runs."""
    for each in parts:
        if each["memory_mib"]["peak"] >= LIMIT_MIB:
            yield f"{each['part']}: the controller took {each['memory_mib']['peak']} MiB, {LIMIT_MIB} are the limit"
        if each["part"] == "few" and not each["handover_s"]["p95"] < LIMIT_P95_S:
            yield f"few: a handover's p95 is {each['handover_s']['p95']} s, {LIMIT_P95_S:g} s are the limit"
        largest = max(each["bytes"]["run"], each["bytes"]["job"])
        if largest >= LIMIT_BYTES:
            yield f"{each['part']}: an object of {largest:,} bytes is over etcd's limit of {LIMIT_BYTES:,}"


if __name__ == "__main__":
    sys.exit(main())
