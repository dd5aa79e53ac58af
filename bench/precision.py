"""Which scores can be trusted: each way of computing influence against fp64, over the step's learning rate.

    python -m bench.precision [--student smollm2|random-1.1b] [--reference FILE.jsonl] [--references N]
                              [--candidates N] [--longest TOKENS] [--lr LR ...] [--less-lr LR ...]

`exact` is fp32; `bf16 weights` rounds θ' and θ̄ to bf16 for the reference passes (gradients and updates fp32);
`released` is the published code's arithmetic, all of it in bf16, against its own θ; `first_order` and `corrected` are
fp32; `exact tf32` is fp32 with TF32 products. For each: Spearman and Pearson with the truth, the error's
size relative to the spread of the scores, what part of it all candidates share (the base's rounding, which no pair
sees), seconds a candidate, and for those with a stated σ the share of errors within 2 σ.

A CPU without bf16 products takes fifteen times as long for one as for fp32's, and it has none in TF32; there each is
taken in fp32 of rounded factors, which is what such a product is. A student of 1.1B on a CPU is scored by exact passes
alone: first order's error bars hold nine gradients.

Writes bench/results/ and, for SmolLM2, two figures into docs/figures/, again after every part, truths included. What an
earlier run with the same rows on this machine has found is not measured again: delete its file for that.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.influence import BUNDLED, WARM_UP_ROWS, WARM_UP_STEPS, Setup, alone, inputs, plain_student, prober, warm_up
from bench.machine import describe, device, results, save, timed

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
RATES = (5e-6, 1e-5, 1e-4, 1e-3)
NOISY = 4  # candidates that σ is measured on
LEAST = {"exact": 0.999, "first_order": 0.99}  # Spearman, at the learning rates of students' training


def main() -> int:
    """Print the table and a line of JSON; 1 where ours does not rank as the truth does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", choices=("smollm2", "random-1.1b"), default="smollm2")
    parser.add_argument("--references", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--lr", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--reference", type=Path, default=BUNDLED, help="JSONL with instruction and response")
    parser.add_argument("--longest", type=int, default=1024, help="longer reference rows lose their end")
    parser.add_argument("--less-lr", type=float, nargs="*", help="of the rates, those where less precision is; all")
    options = parser.parse_args()
    given, bundled = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (options.reference, BUNDLED)
    )
    taken = options.references if options.reference == BUNDLED else 0
    line: dict[str, Any] = {
        "machine": describe(device()),
        "student": {"smollm2": "SmolLM2-135M", "random-1.1b": "TinyLlama-1.1B with random weights"}[options.student],
        "reference": options.reference.name,
        "references": options.references,
        "longest": options.longest,
        "candidates": options.candidates,
        "rates": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            Path(folder),
            given[: options.references],
            bundled[taken : taken + options.candidates],
            bundled[-WARM_UP_ROWS * WARM_UP_STEPS :],
            oracle_references=options.references,
            lr=0.0,
            longest=options.longest,
            student=options.student,
        )
        line["rates"] = begun(line, options.lr)
        alone(warm_up, setup)

        def measure(rate: dict[str, Any], *runs: Callable[[Setup], dict[str, dict[str, Any]]]) -> None:
            at = replace(setup, lr=rate["lr"])
            if runs and "truth" not in rate:
                rate["truth"] = alone(run_truth, at)
            for run in runs:
                judge(rate, alone(run, at))
                keep(options.student, line, rate)

        less = [rate for rate in line["rates"] if options.less_lr is None or rate["lr"] in options.less_lr]
        less_precise = {"exact tf32": run_tf32, "bf16 weights": run_bf16, "released": run_released}
        fp32 = run_fp32 if options.student == "smollm2" or device() == "cuda" else run_exact
        for rates, runs in ((line["rates"], {"exact": fp32}), (less, less_precise)):
            for rate in rates:
                measure(rate, *(run for way, run in runs.items() if way not in rate["ways"]))
    print(json.dumps(line))
    small = [each for each in line["rates"] if each["lr"] <= 1e-4]
    bad = [
        each["lr"]
        for each in small
        if any(each["ways"][way]["spearman"] < least for way, least in LEAST.items() if way in each["ways"])
    ]
    if bad:
        print(f"error: at {bad} ours does not rank the candidates as the truth does", file=sys.stderr)
    return 1 if bad else 0


def begun(line: dict[str, Any], rates: Sequence[float]) -> list[dict[str, Any]]:
    """What there is of these learning rates: as an earlier run of the same rows and machine has left it, or nothing."""
    same = [each for each in results("precision") if all(each.get(key) == line[key] for key in line if key != "rates")]
    known = {rate["lr"]: rate for each in same for rate in each["rates"]}
    return [known.get(lr, {"lr": lr, "ways": {}}) for lr in sorted({*rates, *known})]


def keep(student: str, line: dict[str, Any], found: dict[str, Any]) -> None:
    show(found)
    save("precision", student, line)
    if student == "smollm2":
        draw(line["rates"])


def run_truth(setup: Setup) -> dict[str, list[float]]:
    """fp64: against the zero-gradient step, which ours are measured against, and against θ, which the released is."""
    from tests.influence.oracle import Oracle

    reference, candidates = inputs(setup)
    model, state = plain_student(setup)
    oracle = Oracle(model.to(device()), state, reference, lr=setup.lr)
    del model  # the oracle has a copy
    scores = np.array(oracle.scores(candidates))
    start, drifted = (oracle.reference_nll(weights).sum() for weights in (oracle.start, oracle.stepped(None)))
    drift = (start - drifted) / sum(each.tokens for each in reference)
    return {"zero_gradient_step": scores.tolist(), "before_step": (scores + drift).tolist()}


def run_fp32(setup: Setup) -> dict[str, dict[str, Any]]:
    from stages.influence.noise import first_order_noise

    reference, candidates = inputs(setup)
    probe = prober(setup, reference)
    exact, whole = exactly(probe, candidates)
    probe.first_order(candidates[0])
    first, first_s = timed(lambda: probe.first_orders(candidates))
    first_s /= len(candidates)
    _, corrected_s = timed(lambda: probe.corrected(candidates[0], first[0]))
    return {
        "exact": whole,
        "corrected": {
            "scores": [probe.correct(one, nll)[0] for one, nll in zip(first, exact, strict=True)],
            "seconds": first_s + corrected_s,
        },
        "first_order": {
            "scores": [each.score for each in first],
            "sigma": first_order_noise(probe, candidates[:NOISY]),
            "seconds": first_s,
        },
    }


def run_exact(setup: Setup) -> dict[str, dict[str, Any]]:
    reference, candidates = inputs(setup)
    return {"exact": exactly(prober(setup, reference, gradient_groups=0), candidates)[1]}


def run_tf32(setup: Setup) -> dict[str, dict[str, Any]]:
    reference, candidates = inputs(setup)
    with coarse_products(torch.float32, tf32):
        probe = prober(setup, reference, products="tf32", gradient_groups=0)
        return {"exact tf32": on_its_own(exactly(probe, candidates)[1])}


def exactly(probe: Any, candidates: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """(Σ nll of the reference rows after each candidate, the way's scores, σ and seconds a candidate)."""
    from stages.influence.noise import exact_noise

    found = [probe.exact(candidates[0]), *(probe.exact(candidate) for candidate in candidates[1:-1])]
    last, seconds = timed(lambda: probe.exact(candidates[-1]))
    sigma = exact_noise(probe, candidates[:NOISY], draws=4)["exact"]
    results = [*found, last]
    scores = [each.score for each in results]
    return [each.nll for each in results], {"scores": scores, "sigma": sigma, "seconds": seconds}


def run_bf16(setup: Setup) -> dict[str, dict[str, Any]]:
    reference, candidates = inputs(setup)
    with coarse_products(torch.bfloat16, Tensor.float):
        low = prober(setup, reference, forward_dtype="bfloat16", gradient_groups=0)
        return {"bf16 weights": on_its_own(exactly(low, candidates)[1])}


def run_released(setup: Setup) -> dict[str, dict[str, Any]]:
    from stages.influence.paper import paper_reference_loss, paper_score

    reference, candidates = inputs(setup)
    model, state = plain_student(setup)
    model.to(device())
    for name, parameter in model.named_parameters():
        parameter.data = state.weights[name].to(parameter.device, torch.bfloat16)
    pad_to = max(len(each.ids) for each in (*reference, *candidates))
    with coarse_products(torch.bfloat16, Tensor.float):
        before = paper_reference_loss(model, reference, pad_to=pad_to)
        padded = partial(paper_score, model, state, reference=reference, lr=setup.lr, pad_to=pad_to, before=before)
        released = [padded(candidate) for candidate in candidates[:-1]]
        last, seconds = timed(lambda: padded(candidates[-1]))
    return {"released": on_its_own({"scores": [*released, last], "seconds": seconds})}


def on_its_own(way: dict[str, Any]) -> dict[str, Any]:
    """Without its seconds where products were not the device's own."""
    return way if device() == "cuda" else {**way, "seconds": None}


def tf32(values: Tensor) -> Tensor:
    """The nearest numbers with ten bits after the first."""
    bits = values.contiguous().view(torch.int32)
    return bits.add(1 << 12).bitwise_and_(-1 << 13).view(torch.float32)


@contextmanager
def coarse_products(dtype: torch.dtype, factor: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block a CPU takes products of matrices of `dtype` from such factors in fp32, and rounds them to it.

    Those of fp32 matrices only where TF32 is asked for. A GPU has such products.
    """
    aten = torch.ops.aten
    operands = {aten.mm.default: (0, 1), aten.bmm.default: (0, 1), aten.addmm.default: (1, 2)}

    class Coarse(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            full = dtype == torch.float32 and torch.get_float32_matmul_precision() != "high"
            if full or func not in operands or args[0].dtype != dtype:
                return func(*args, **(kwargs or {}))
            taken = [factor(each) if place in operands[func] else each.float() for place, each in enumerate(args)]
            return func(*taken, **(kwargs or {})).to(dtype)

    if device() == "cuda":
        yield
    else:
        with Coarse():
            yield


def judge(rate: dict[str, Any], ways: dict[str, dict[str, Any]]) -> None:
    """Adds to a learning rate what these ways' scores are worth."""
    from scipy.stats import pearsonr, spearmanr

    rate["spread"] = float(np.std(rate["truth"]["zero_gradient_step"]))
    for name, way in ways.items():
        true = np.array(rate["truth"]["before_step" if name == "released" else "zero_gradient_step"])
        error = np.array(way["scores"]) - true
        rate["ways"][name] = {
            "spearman": round(float(spearmanr(way["scores"], true).statistic), 4),
            "pearson": round(float(pearsonr(way["scores"], true).statistic), 5),
            "relative_error": float(np.sqrt(np.mean(error**2)) / np.std(true)),
            "shared_error": float(abs(error.mean()) / np.std(true)),
            "seconds": way.get("seconds"),
            "sigma": way.get("sigma"),
            "within_2_sigma": float(np.mean(np.abs(error) < 2 * way["sigma"])) if "sigma" in way else None,
            "scores": way["scores"],
        }


def show(found: dict[str, Any]) -> None:
    print(f"\nlr {found['lr']:g}; the scores' standard deviation is {found['spread']:.2e}")
    heads = f"{'way':<14}{'Spearman':>10}{'Pearson':>10}{'error/spread':>14}{'shared':>9}{'s':>9}"
    print(f"{heads}{'sigma':>11}{'within 2 sigma':>16}")
    for name, way in found["ways"].items():
        sigma = f"{way['sigma']:>11.1e}{way['within_2_sigma']:>15.0%}" if way["sigma"] is not None else ""
        seconds = " " * 9 if way["seconds"] is None else f"{way['seconds']:>9.3f}"
        print(
            f"{name:<14}{way['spearman']:>10.4f}{way['pearson']:>10.5f}{way['relative_error']:>14.5f}"
            f"{way['shared_error']:>9.5f}{seconds}{sigma}"
        )


def draw(found: Sequence[dict[str, Any]]) -> None:
    from stages.report.draw.charts import Line, lines

    def curve(way: str, colour: str, value: str, *, log: bool) -> Line:
        points = [(math.log10(each["lr"]), each["ways"][way][value]) for each in found if way in each["ways"]]
        return Line(way, [(x, math.log10(y) if log else y) for x, y in points], colour)

    FIGURES.mkdir(parents=True, exist_ok=True)
    rate = "log10 of the step's learning rate"
    precision = lines(
        [
            curve(*each, "spearman", log=False)
            for each in (("exact", "c"), ("exact tf32", "d"), ("bf16 weights", "b"), ("released", "a"))
            if any(each[0] in rate["ways"] for rate in found)
        ],
        x_label=rate,
        y_label="Spearman correlation with fp64",
        title="What precision does to the ranking",
    )
    linear = lines(
        [
            curve(*each, "relative_error", log=True)
            for each in (("exact", "c"), ("corrected", "d"), ("first_order", "b"))
        ],
        x_label=rate,
        y_label="log10 of error / spread of scores",
        title="Where first order breaks down",
    )
    (FIGURES / "precision.svg").write_text(precision.standalone("precision") + "\n")
    (FIGURES / "linearisation.svg").write_text(linear.standalone("linearisation") + "\n")


if __name__ == "__main__":
    sys.exit(main())
