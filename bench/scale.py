"""The influence stage without its model: what storing and publishing a million scores costs.

    python -m bench.scale [--candidates N ...] [--s3 s3://bucket/prefix]

The stage itself runs, with its chunks, Parquet files, conditional commits and manifests, on an artifact of responses
(one file); only what scores a row is replaced by a constant. Printed: its milliseconds a candidate, requests to the
store a chunk, the most memory, how long the columns that `aggregate` needs take to be read out of its chunks, and how
long the stages `aggregate` and `pairs` take on it as a whole, with prompts of a kilobyte and a pair a prompt. 100
candidates are a chunk, so a million are 10,000 chunks in 100 shards, one after the other in one process. `--s3` uses a
store that is running already.

The exit status is 1 where a limit is not met, or where a candidate of the largest run takes 1.5 times as long as one of
the smallest: the cost is to be linear.
"""

from __future__ import annotations

import argparse
import json
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

from bench.machine import describe, peak_gib, save, timed
from stages.contract.artifact import Artifact
from stages.contract.execute import run_shard
from stages.contract.store import Store, open_store
from stages.contract.task import write_task
from stages.influence.results import FirstOrderResult
from tests.support import artifact_input, make_task, publish, run_stage

PER_PROMPT, PROMPTS_A_CHUNK, CHUNKS_A_SHARD = 4, 25, 100
LIMIT_MS, LIMIT_READ_S, LIMIT_GROWTH = 5.0, 5.0, 1.5
WARM = 1000  # candidates of a first run that is not counted: it imports the stage


def main() -> int:
    """Print a table and a line of JSON; 1 where a limit is not met, or time grows faster than candidates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--s3", help="URI of a store; a folder of this machine otherwise")
    options = parser.parse_args()
    found = []
    print(f"{describe()}, store: {options.s3 or 'a folder'}")
    heads = f"{'candidates':>12}{'chunks':>9}{'ms each':>9}{'requests/chunk':>16}{'peak GiB':>10}{'read s':>8}"
    print(f"{heads}{'aggregate s':>13}{'pairs s':>9}")
    for number, candidates in enumerate((WARM, *sorted(options.candidates))):
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"{options.s3}/{candidates}-{time.time():.0f}" if options.s3 else f"file://{folder}")
            each = measured(store, candidates)
        if not number:
            continue
        found.append(each)
        print(
            f"{candidates:>12,}{each['chunks']:>9,}{each['ms']:>9.3f}{each['requests']:>16.1f}"
            f"{each['peak_gib']:>10.2f}{each['read_s']:>8.2f}{each['aggregate_s']:>13.1f}{each['pairs_s']:>9.1f}"
        )
    growth = round(found[-1]["ms"] / found[0]["ms"], 2)
    line = {"machine": describe(), "store": "s3" if options.s3 else "folder", "runs": found, "growth": growth}
    save("scale", "s3" if options.s3 else "folder", line)
    print(json.dumps(line))
    slow = [each for each in found if each["ms"] > LIMIT_MS or each["read_s"] > LIMIT_READ_S]
    if slow:
        print(f"error: over {LIMIT_MS} ms a candidate or {LIMIT_READ_S} s to read: {slow}", file=sys.stderr)
    if growth >= LIMIT_GROWTH:
        print(f"error: not linear: {growth} times the smallest run's time a candidate in the largest", file=sys.stderr)
    return 1 if slow or growth >= LIMIT_GROWTH else 0


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
        cpu = time.process_time()
        _, seconds = timed(lambda: [run_shard(store, task, shard, threading.Event()) for shard in range(shards)])
        cpu_s = time.process_time() - cpu
    scores = Artifact(store, task.output)
    columns = ("prompt_id", "instruction_id", "score", "noise")
    read, read_s = timed(lambda: scores.table(columns=columns))
    assert read.num_rows == candidates, f"{read.num_rows} of {candidates} rows"
    peak = peak_gib()
    texts = publish(store, "curate", tables={"rows": instructions(candidates)})
    given = {"scores": artifact_input(scores), "instructions": texts}
    means, aggregate_s = timed(lambda: run_stage(store, "aggregate", {}, given))
    paired = {"scores": artifact_input(means)}
    _, pairs_s = timed(lambda: run_stage(store, "pairs", {"most_per_prompt": 1}, paired))
    chunks = -(-candidates // (PER_PROMPT * PROMPTS_A_CHUNK))
    return {
        "candidates": candidates,
        "chunks": chunks,
        "shards": shards,
        "ms": round(1000 * seconds / candidates, 3),
        "requests": round(sum(requests.values()) / chunks, 2),
        "peak_gib": round(peak, 2),
        "read_s": round(read_s, 2),
        "aggregate_s": round(aggregate_s, 1),
        "pairs_s": round(pairs_s, 1),
        "pairs_peak_gib": round(peak_gib(), 2),
        "cpu_s": round(cpu_s, 1),
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


def instructions(candidates: int) -> pa.Table:
    """Of `responses`, as `curate` has them: with the prompt that each was written for."""
    numbers = np.arange(candidates)
    prompts = pa.array([f"prompt {number}: {'an example, ' * 90}" for number in range(-(-candidates // PER_PROMPT))])
    rows = responses(candidates).select(["instruction_id", "prompt_id", "instruction", "split"])
    return rows.append_column("output", rows["instruction"]).append_column(
        "prompt", pa.chunked_array([prompts.take(pa.array(numbers // PER_PROMPT))])
    )


class Constant:
    """A scorer whose answers cost nothing, half of them negative, and an encoder whose examples are all alike."""

    tokens = 300
    truncated = False

    def __init__(self) -> None:
        self._sign = -1.0

    def encode(self, instruction: str, response: str) -> Constant:
        return self

    def first_orders(self, examples: Sequence[Any]) -> list[FirstOrderResult]:
        return [FirstOrderResult(1.25e-4 * self._next(), 3.5e-5, 2.125, None, np.zeros(8)) for _ in examples]

    def _next(self) -> float:
        self._sign = -self._sign
        return self._sign


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
