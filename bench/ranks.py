"""A student shared by several processes: memory of each and time of a candidate, for 1, 2 and 4 CPU ranks.

    python -m bench.ranks [--ranks N ...]

Memory is a rank's largest resident size, less that of the same work with a student of a few kilobytes (what imports
take), beside what stages/influence/memory.py says: that arithmetic decides how many GPUs a large student gets. Pages of
files count, since one process maps θ, m and v from theirs; those that a rank shares with another do not. glibc is made
to return what is freed (`ALLOCATOR`): left alone it kept some 750 MiB of a rank's passing tensors. Times say little:
ranks share this machine's cores, gloo copies through the host, and every larger tensor is mapped anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.influence import BUNDLED, WARM_UP_ROWS, WARM_UP_STEPS, Setup, alone, inputs, warm_up
from bench.machine import describe, save

METHODS = {"first_order": (False, True), "exact": (True, False), "two_stage": (True, True)}
POLL_S = 0.01
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
Work = tuple[Any, list[Any], bool, bool]  # a Scoring, candidates, exact, first_order


def main() -> int:
    """Print the table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    os.environ.update(ALLOCATOR)  # of the processes that are started from here
    rows = [json.loads(line) for line in BUNDLED.read_text().splitlines()]
    found = []
    print(describe())
    print(f"{'ranks':>5} {'method':<12}{'MiB a rank':>12}{'by formula':>12}{'s/candidate':>13}")
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            Path(folder), rows[:8], rows[8:12], rows[-WARM_UP_ROWS * WARM_UP_STEPS :], oracle_references=8, lr=5e-6
        )
        alone(warm_up, setup)
        tiny = Path(folder) / "tiny"
        alone(tiny_student, replace(setup, checkpoint=tiny))
        for ranks in options.ranks:
            for method in METHODS:
                each = compared(setup, tiny, ranks, method)
                found.append(each)
                print(
                    f"{ranks:>5} {method:<12}{each['mib']:>12,}{each['formula_mib']:>12,}{each['seconds']:>13.2f}",
                    flush=True,
                )
    line = {"machine": describe(), "student": "SmolLM2-135M", "runs": found}
    save("ranks", "smollm2-135m", line)
    print(json.dumps(line))
    return 0


def tiny_student(setup: Setup) -> None:
    from tests.influence.builders import llama, warmed_up

    model = llama()
    model.config.save_pretrained(setup.checkpoint)
    warmed_up(model).save(setup.checkpoint)


def compared(setup: Setup, tiny: Path, ranks: int, method: str) -> dict[str, Any]:
    from stages.influence.examples import Example
    from stages.influence.memory import rank_bytes, student_size
    from stages.influence.results import ProbeOptions
    from stages.influence.scorer import Scoring

    options = ProbeOptions(lr=setup.lr, gradient_groups=0, pack_tokens=512, chunk=64)
    exact, first_order = METHODS[method]
    reference, candidates = inputs(setup)
    size = student_size(setup.checkpoint)
    few = [Example((1, 2, 3, 4), 1)] * 8
    imports, _ = peak_and_seconds((Scoring(tiny, few, options, "cpu"), few[:2], exact, first_order), ranks)
    work = (Scoring(setup.checkpoint, reference, options, "cpu"), candidates, exact, first_order)
    peak, seconds = peak_and_seconds(work, ranks)
    needed = rank_bytes(size, options, ranks=ranks, exact=exact, first_order=first_order, tokens=512, device="cpu")
    return {
        "ranks": ranks,
        "method": method,
        "mib": round((peak - imports) / 2**20),
        "formula_mib": round(needed / 2**20),
        "seconds": round(seconds, 2),
    }


def peak_and_seconds(work: Work, ranks: int) -> tuple[int, float]:
    """Most memory of any of the processes that score, and their seconds a candidate."""
    from stages.influence.ranked import RankedScorer

    if ranks > 1:
        with Watch() as watch:
            scorer = RankedScorer(work[0], ranks)
            watch.processes = [process.pid for process in scorer._processes]
            seconds = scored(scorer, work)
            scorer.close()
        return watch.peak, seconds
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=one_process, args=(work, answers))
    process.start()
    with Watch() as watch:
        watch.processes = [process.pid or 0]
        seconds = answers.get()
    process.join()
    return watch.peak, seconds


def one_process(work: Work, answers: Any) -> None:
    from stages.influence.scorer import LocalScorer

    answers.put(scored(LocalScorer(work[0]), work))


def scored(scorer: Any, work: Work) -> float:
    _, candidates, exact, first_order = work
    if first_order:
        scorer.first_orders(candidates[:1])  # the reference gradient
    started = time.perf_counter()
    if first_order:
        scorer.first_orders(candidates)
    for candidate in candidates if exact else ():
        scorer.exact(candidate)
    return (time.perf_counter() - started) / len(candidates)


class Watch:
    """Looks at the processes' memory while something goes on."""

    def __init__(self) -> None:
        self.processes: Sequence[int] = ()
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(POLL_S):
            self.peak = max([self.peak, *map(_resident, self.processes)])


def _resident(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssFile")))


if __name__ == "__main__":
    sys.exit(main())
