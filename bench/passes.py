"""One pass over the reference set on a GPU: which precision, attention and pack length it is fastest in.

    python -m bench.passes [--student smollm2|random-1.1b] [--references N]

A pass is what `exact` costs a candidate. For each combination of the weights' dtype, how fp32 matrices are multiplied,
the attention, the tokens of a pack, and with or without CUDA graphs (stages/influence/graphs.py): seconds, the share of
the floor (operations of the pass at the measured rate of a large product in the same precision), and seconds of a step
on one candidate and of its first-order score, which are in fp32 whatever the weights of the pass are. The last line is
JSON, and is written to bench/results/.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from bench.influence import BUNDLED, WARM_UP_ROWS, WARM_UP_STEPS, Setup, alone, flops, inputs, prober, warm_up
from bench.machine import describe, device, matmul_flops, peak_gib, save, timed

PACKS = (1024, 8192)
# (weights, products of fp32 matrices, torch's setting for the rate of the floor, attention)
WAYS = (
    ("float32", "fp32", "highest", "segments"),
    ("float32", "tf32", "high", "segments"),
    ("bfloat16", "fp32", "highest", "segments"),
    ("bfloat16", "fp32", "highest", "varlen"),
)
REPEATS = 3


def main() -> int:
    """Print the table and a line of JSON; 66 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", choices=("smollm2", "random-1.1b"), default="random-1.1b")
    parser.add_argument("--reference", type=Path, default=BUNDLED, help="JSONL with instruction and response")
    parser.add_argument("--references", type=int, default=64)
    options = parser.parse_args()
    if device() != "cuda":
        print("error: there is no GPU here; passes on a CPU are in bench.influence", file=sys.stderr)
        return 66
    given, bundled = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (options.reference, BUNDLED)
    )
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            Path(folder),
            given[: options.references],
            bundled[-WARM_UP_ROWS * WARM_UP_STEPS - 1 :][:1],
            bundled[-WARM_UP_ROWS * WARM_UP_STEPS :],
            oracle_references=0,
            lr=5e-6,
            student=options.student,
        )
        alone(warm_up, setup)
        line = alone(run_passes, setup)
    save("passes", options.student, line)
    print(json.dumps(line))
    return 0


def run_passes(setup: Setup) -> dict[str, Any]:
    import torch

    reference, candidates = inputs(setup)
    rates = {
        (dtype, setting): matmul_flops(8192, 1.0, setting=setting, device="cuda", dtype=dtype)
        for dtype, _, setting, _ in WAYS
    }
    rows = []
    print("weights   products attention   pack graphs        s  floor  step s first s    GiB")
    for (dtype, products, setting, attention), tokens, graphs in product(WAYS, PACKS, (False, True)):
        probe = prober(
            setup,
            reference,
            forward_dtype=dtype,
            products=products,
            attention=attention,
            pack_tokens=tokens,
            gradient_groups=0,
            cuda_graphs=graphs,
        )
        pass_s, step_s, first_s = measured(probe, candidates)
        needed = flops(probe.loss.model, reference)
        rows.append(
            {
                "weights": dtype,
                "products": products,
                "attention": attention,
                "pack_tokens": tokens,
                "graphs": graphs,
                "seconds": round(pass_s, 4),
                "floor": round(needed / rates[dtype, setting] / pass_s, 3),
                "step_seconds": round(step_s, 4),
                "first_order_seconds": round(first_s, 4),
                "peak_gib": round(peak_gib("cuda"), 1),
            }
        )
        print(
            "{:<10}{:<9}{:<10}{:>6}{:>7}{:>9.4f}{:>7.0%}{:>8.4f}{:>8.4f}{:>7.1f}".format(*rows[-1].values()), flush=True
        )
        torch.cuda.reset_peak_memory_stats()
    return {
        "machine": describe("cuda"),
        "student": setup.student,
        "references": len(reference),
        "tokens": sum(len(example.ids) for example in reference),
        "tflops": {f"{dtype} {setting}": round(rate / 1e12) for (dtype, setting), rate in rates.items()},
        "passes": rows,
    }


def measured(probe: Any, candidates: list[Any]) -> tuple[float, float, float]:
    """Median seconds of a pass, of a step and of a first-order score, each after two of them."""
    weights, _ = probe.step(candidates[0])
    works = (
        lambda: probe.reference_losses(weights),
        lambda: probe.step(candidates[0]),
        lambda: probe.first_order(candidates[0]),
    )
    found = [[timed(work)[1] for _ in range(2 + REPEATS)][2:] for work in works]
    return tuple(statistics.median(each) for each in found)  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())
