"""The influence stage without its model: what storing and publishing a million scores costs.

    python -m bench.scale [--candidates N ...] [--s3 s3://bucket/prefix]

The stage itself runs, with its chunks, Parquet files, conditional commits and manifests, on an artifact of responses;
only what scores a row is replaced by a constant. Printed: its milliseconds a candidate, requests to the store a chunk,
the most memory, and how long the artifact takes to be read for pairing. 100 candidates are a chunk, so a million are
10,000 chunks in 100 shards, one after the other in one process. `--s3` uses a store that is running already.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.machine import describe, peak_gib, save
from stages.contract.artifact import Artifact
from stages.contract.execute import run_shard
from stages.contract.store import Store, open_store
from stages.contract.task import write_task
from stages.influence.results import FirstOrderResult
from tests.support import make_task, publish

PER_PROMPT, PROMPTS_A_CHUNK, CHUNKS_A_SHARD = 4, 25, 100
LIMIT_MS, LIMIT_READ_S = 5.0, 5.0


def main() -> int:
    """Print a table and a line of JSON; 1 where a limit is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--s3", help="URI of a store; a folder of this machine otherwise")
    options = parser.parse_args()
    found = []
    print(f"{describe()}, store: {options.s3 or 'a folder'}")
    print(f"{'candidates':>12}{'chunks':>9}{'ms each':>9}{'requests/chunk':>16}{'peak GiB':>10}{'read s':>8}")
    for candidates in options.candidates:
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"{options.s3}/{candidates}-{time.time():.0f}" if options.s3 else f"file://{folder}")
            each = measured(store, candidates)
        found.append(each)
        print(
            f"{candidates:>12,}{each['chunks']:>9,}{each['ms']:>9.2f}{each['requests']:>16.1f}"
            f"{each['peak_gib']:>10.2f}{each['read_s']:>8.2f}"
        )
    line = {"machine": describe(), "store": "s3" if options.s3 else "folder", "runs": found}
    save("scale", "s3" if options.s3 else "folder", line)
    print(json.dumps(line))
    slow = [each for each in found if each["ms"] > LIMIT_MS or each["read_s"] > LIMIT_READ_S]
    if slow:
        print(f"error: over {LIMIT_MS} ms a candidate or {LIMIT_READ_S} s to read: {slow}", file=sys.stderr)
    return 1 if slow else 0


def measured(store: Store, candidates: int) -> dict[str, Any]:
    shards = max(1, -(-candidates // (PER_PROMPT * PROMPTS_A_CHUNK * CHUNKS_A_SHARD)))
    inputs = {
        "rows": publish(store, "responses", tables={"rows": responses(candidates)}),
        "checkpoint": publish(store, "warmup", tables={"rows": pa.table({"x": [0]})}),
        "reference": publish(store, "prepare", tables={"probe": pa.table({"x": [0]})}),
    }
    settings = {"method": "first_order", "chunk_rows": PROMPTS_A_CHUNK}
    task = make_task("influence", settings, inputs, shards=shards)
    write_task(store, task)
    with constant_scores(), counted(store) as requests:
        started = time.perf_counter()
        for shard in range(shards):
            run_shard(store, task, shard, threading.Event())
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    columns = ("prompt_id", "instruction_id", "score", "noise")
    rows = Artifact(store, task.output).table(columns=columns).num_rows
    read_s = time.perf_counter() - started
    assert rows == candidates, f"{rows} of {candidates} rows"
    chunks = -(-candidates // (PER_PROMPT * PROMPTS_A_CHUNK))
    return {
        "candidates": candidates,
        "chunks": chunks,
        "shards": shards,
        "ms": round(1000 * seconds / candidates, 3),
        "requests": round(sum(requests.values()) / chunks, 2),
        "peak_gib": round(peak_gib(), 2),
        "read_s": round(read_s, 2),
        "cpu_s": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 1),
    }


def responses(candidates: int) -> pa.Table:
    numbers = np.arange(candidates)
    prompts = pa.array([f"p-{number:08d}" for number in numbers // PER_PROMPT])
    names = pa.array([f"i-{number:08d}" for number in numbers])
    text = pa.DictionaryArray.from_arrays(pa.array(numbers % 2, pa.int32()), pa.array(["a word " * 40, "two " * 60]))
    return pa.table(
        {
            "response_id": names,
            "instruction_id": names,
            "prompt_id": prompts,
            "instruction": text.cast(pa.string()),
            "response": text.cast(pa.string()),
            "usable": pa.array(np.ones(candidates, bool)),
            "split": pa.array(["candidate"]).take(pa.array(np.zeros(candidates, np.int64))),
        }
    )


class Constant:
    """A scorer whose answers cost nothing, and an encoder whose examples are all alike."""

    tokens = 300

    def encode(self, instruction: str, response: str) -> Constant:
        return self

    def first_orders(self, examples: Sequence[Any]) -> list[FirstOrderResult]:
        return [FirstOrderResult(1.25e-4, 3.5e-5, 2.125, None, np.zeros(8)) for _ in examples]


@contextmanager
def constant_scores() -> Iterator[None]:
    import stages.influence.stage as stage
    from stages.influence.inputs import Probes

    @contextmanager
    def opened(context: Any) -> Iterator[Probes]:
        yield Probes(Constant(), Constant(), 1, corrects=False)  # type: ignore[arg-type]

    usual = stage.opened  # type: ignore[attr-defined]
    stage.opened = opened  # type: ignore[attr-defined]
    try:
        yield
    finally:
        stage.opened = usual  # type: ignore[attr-defined]


@contextmanager
def counted(store: Store) -> Iterator[Counter[str]]:
    """Requests to the store by method."""
    names = ("get", "get_or_none", "get_file", "put", "put_if_absent", "put_file", "size", "list", "delete")
    requests: Counter[str] = Counter()
    usual = {name: getattr(store, name) for name in names if hasattr(store, name)}

    def counting(name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            requests[name] += 1
            return usual[name](*arguments, **named)

        return call

    for name in usual:
        setattr(store, name, counting(name))
    try:
        yield requests
    finally:
        for name in usual:
            delattr(store, name)


if __name__ == "__main__":
    Path("bench/results").mkdir(parents=True, exist_ok=True)
    sys.exit(main())
