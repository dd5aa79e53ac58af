"""Influence: the published procedure, ours, and the truth, on the same student, candidates and reference rows.

    python -m bench.influence [--quick] [--reference FILE.jsonl]

Published (arXiv 2410.14208, released code): for each candidate the checkpoint is loaded from disk, one AdamW step is
taken on the candidate padded to 1024 tokens, and the reference set is evaluated in batches of 8 padded to 1024. Here in
fp32, as ours is, so that arithmetic and layout are compared and not precision. `exact` and `first_order` are those of
stages.influence.probe; `two_stage` is first order on all and exact on the best and the worst of each prompt's four.

The truth is an oracle in fp64 (tests/influence/oracle.py), straight from the formula. The floor is the time that the
necessary matrix products alone would take at this machine's measured rate. Each way runs in a process of its own, one
after the other, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import describe, matmul_flops, peak_gib

PER_PROMPT = 4  # candidates of one prompt, of which two_stage scores two exactly
WARM_UP_ROWS, WARM_UP_STEPS, WARM_UP_LR = 4, 8, 1e-5
BUNDLED = Path(__file__).parent.parent / "stages" / "data" / "reference.jsonl"


@dataclass(frozen=True)
class Setup:
    """What every way is given. `published` candidates are few: at 256 reference rows each takes minutes."""

    checkpoint: Path
    rows: list[dict[str, str]]
    references: int
    candidates: int
    published: int
    lr: float
    candidate_tokens: int


def main() -> int:
    """Print the table and the line of JSON; 1 if ours does not agree with the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows: under 10 minutes on two cores")
    parser.add_argument("--reference", type=Path, default=BUNDLED, help="JSONL with instruction and response")
    parser.add_argument("--references", type=int, help="reference rows; 8 with --quick, else 32")
    parser.add_argument("--candidates", type=int, help="candidates; 6 with --quick, else 12")
    parser.add_argument("--lr", type=float, default=5e-6, help="learning rate of the probes' step")
    options = parser.parse_args()
    references = options.references or (8 if options.quick else 32)
    candidates = options.candidates or (6 if options.quick else 12)
    rows = [json.loads(line) for line in options.reference.read_text().splitlines()]
    if len(rows) < references + candidates + 1:
        print(f"error: {options.reference} has {len(rows)} rows, too few", file=sys.stderr)
        return 64
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            Path(folder), rows, references, candidates, published=1 if options.quick else 2, lr=options.lr,
            candidate_tokens=192,
        )  # fmt: skip
        alone(warm_up, setup)
        published, mine, truth = alone(run_published, setup), alone(run_ours, setup), alone(run_oracle, setup)
    return report(setup, published, mine, truth)


def alone(way: Callable[[Setup], Any], setup: Setup) -> Any:
    """Calls `way` in a fresh process."""
    print(f"… {way.__name__.replace('_', ' ')}", file=sys.stderr, flush=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(way, (setup,))


def warm_up(setup: Setup) -> None:
    """Leaves a checkpoint with real moments: a few steps of torch's AdamW on rows that are nothing else's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.influence.state import AdamState
    from stages.models.source import ModelSource, resolve

    model_folder = resolve(ModelSource(model="builtin:smollm2"), setup.checkpoint / "cache")
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model.config.save_pretrained(setup.checkpoint)
    tokenizer.save_pretrained(setup.checkpoint)
    optimizer = torch.optim.AdamW(model.parameters(), lr=WARM_UP_LR, weight_decay=0.0)
    examples = encode(setup, setup.rows[::-1], 128)[: WARM_UP_ROWS * WARM_UP_STEPS]
    for step in range(WARM_UP_STEPS):
        optimizer.zero_grad()
        for example in examples[step * WARM_UP_ROWS % len(examples) :][:WARM_UP_ROWS]:
            ids = torch.tensor([example.ids])
            labels = ids.masked_fill(torch.arange(ids.shape[1]) < example.labels_from, -100)
            (model(ids, labels=labels).loss / WARM_UP_ROWS).backward()
        optimizer.step()
    named = dict(model.named_parameters())
    AdamState(
        weights={name: p.detach() for name, p in named.items()},
        exp_avg={name: optimizer.state[p]["exp_avg"] for name, p in named.items()},
        exp_avg_sq={name: optimizer.state[p]["exp_avg_sq"] for name, p in named.items()},
        step=WARM_UP_STEPS,
        lr=WARM_UP_LR,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
    ).save(setup.checkpoint)


def encode(setup: Setup, rows: list[dict[str, str]], tokens: int) -> list[Any]:
    from transformers import AutoTokenizer

    from stages.influence.examples import Encoder

    encoder = Encoder(AutoTokenizer.from_pretrained(setup.checkpoint), tokens)
    encoded = [encoder.encode(row["instruction"], row["response"]) for row in rows]
    return [example for example in encoded if not hasattr(example, "reason")]


def inputs(setup: Setup) -> tuple[list[Any], list[Any]]:
    """(reference, candidates): the first rows and the ones after them."""
    after = setup.rows[setup.references : setup.references + setup.candidates]
    return encode(setup, setup.rows[: setup.references], 1024), encode(setup, after, setup.candidate_tokens)


def plain_student(setup: Setup) -> tuple[Any, Any]:
    """(the Hugging Face model with the checkpoint's weights, the checkpoint)."""
    from stages.influence.state import build_student, load_state

    model = build_student(setup.checkpoint)
    state = load_state(setup.checkpoint, model)
    for name, parameter in model.named_parameters():
        parameter.data = state.weights[name].clone()
    return model, state


def run_published(setup: Setup) -> dict[str, Any]:
    import torch

    from stages.influence.paper import paper_reference_loss, paper_score
    from stages.influence.state import load_state

    reference, candidates = inputs(setup)
    model, state = plain_student(setup)
    before = paper_reference_loss(model.eval(), reference)
    seconds, scores = [], []
    for candidate in candidates[: setup.published]:
        started = time.perf_counter()
        state = load_state(setup.checkpoint, model)
        scores.append(paper_score(model, state, candidate, reference, lr=setup.lr, dtype=torch.float32, before=before))
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds), "scores": scores, "peak": peak_gib()}


def run_ours(setup: Setup) -> dict[str, Any]:
    from stages.influence.probe import ProbeOptions, Prober
    from stages.influence.state import build_student, load_state

    reference, candidates = inputs(setup)
    model = build_student(setup.checkpoint)
    state = load_state(setup.checkpoint, model)
    prober = Prober(model, state, reference, ProbeOptions(lr=setup.lr, gradient_groups=0))
    rate = matmul_flops()
    found: dict[str, Any] = {}
    _, found["base_s"] = timed(lambda: prober.base_nll)
    exact = [timed(lambda candidate=candidate: prober.exact(candidate).score) for candidate in candidates]
    _, found["gradient_s"] = timed(lambda: prober.reference_gradient)
    prober.first_order(candidates[0])
    first = [timed(lambda candidate=candidate: prober.first_order(candidate).score) for candidate in candidates]
    found["exact"], found["exact_s"] = [score for score, _ in exact], statistics.median(s for _, s in exact)
    found["first"], found["first_s"] = [score for score, _ in first], statistics.median(s for _, s in first)
    passes, step = flops(model, reference), 3 * statistics.median(flops(model, [candidate]) for candidate in candidates)
    found["floor_exact"] = (passes + step) / rate / found["exact_s"]
    found["floor_first"] = step / rate / found["first_s"]
    return found | {"peak": peak_gib(), "gflops": rate / 1e9, "tokens": sum(len(example.ids) for example in reference)}


def run_oracle(setup: Setup) -> dict[str, Any]:
    from tests.influence.oracle import Oracle

    reference, candidates = inputs(setup)
    model, state = plain_student(setup)
    oracle = Oracle(model, state, reference, lr=setup.lr)
    return {"scores": oracle.scores(candidates), "peak": peak_gib()}


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def flops(model: Any, examples: list[Any]) -> float:
    """Operations of a forward pass: weights once a token, the head once a label, attention's two products."""
    config = model.config
    head = config.vocab_size * config.hidden_size
    body = sum(p.numel() for p in model.parameters()) - head
    total = 0.0
    for example in examples:
        length = len(example.ids) - 1
        attention = 2 * config.num_hidden_layers * config.hidden_size * length * (length + 1)  # causal: half of 4·d·T²
        total += 2 * body * length + 2 * head * example.tokens + attention
    return total


def report(setup: Setup, published: dict[str, Any], mine: dict[str, Any], truth: dict[str, Any]) -> int:
    from scipy.stats import spearmanr

    def agreement(scores: list[float]) -> float:
        return float(spearmanr(scores, truth["scores"]).statistic)

    two_stage_s = mine["first_s"] + mine["exact_s"] * 2 / PER_PROMPT
    ends = deciding(mine["first"])
    two_stage = [mine["exact"][i] if i in ends else score for i, score in enumerate(mine["first"])]
    rows = [
        ("published", published["seconds"], None, None, published["peak"]),
        ("exact", mine["exact_s"], agreement(mine["exact"]), mine["floor_exact"], mine["peak"]),
        ("two_stage", two_stage_s, agreement(two_stage), None, mine["peak"]),
        ("first_order", mine["first_s"], agreement(mine["first"]), mine["floor_first"], mine["peak"]),
    ]
    print(
        f"{setup.references} reference rows ({mine['tokens']} tokens), {setup.candidates} candidates, lr {setup.lr:g},"
    )
    print(f"{describe()}, {mine['gflops']:.0f} GFLOP/s in fp32")
    print(f"{'way':<13}{'s/candidate':>12}{'ratio':>8}{'Spearman':>10}{'floor':>8}{'peak GiB':>10}")
    for name, seconds, spearman, floor, peak in rows:
        shown = (f"{value:.3f}" if value is not None else "" for value in (spearman, floor))
        ratio = published["seconds"] / seconds
        print(f"{name:<13}{seconds:>12.2f}{ratio:>8.1f}{next(shown):>10}{next(shown):>8}{peak:>10.2f}")
    print(f"once: base {mine['base_s']:.1f} s, reference gradient {mine['gradient_s']:.1f} s")
    ratios = {f"ratio_{name}": round(published["seconds"] / seconds, 2) for name, seconds, *_ in rows[1:]}
    agreements = {f"spearman_{name}": round(spearman, 4) for name, _, spearman, _, _ in rows[1:]}  # type: ignore[arg-type]
    line = {
        "machine": describe(),
        "refs": setup.references,
        "candidates": setup.candidates,
        **ratios,
        **agreements,
        "floor_exact": round(mine["floor_exact"], 3),
        "floor_first_order": round(mine["floor_first"], 3),
        "peak_gib": round(mine["peak"], 2),
    }
    print(json.dumps(line))
    if agreements["spearman_exact"] < 0.999:
        print("error: exact does not rank the candidates as the truth does", file=sys.stderr)
        return 1
    return 0


def deciding(scores: list[float]) -> set[int]:
    """Places of the best and the worst of each prompt's candidates; four after one another share a prompt."""
    found: set[int] = set()
    for start in range(0, len(scores), PER_PROMPT):
        group = range(start, min(start + PER_PROMPT, len(scores)))
        found |= {min(group, key=scores.__getitem__), max(group, key=scores.__getitem__)}
    return found


if __name__ == "__main__":
    sys.exit(main())
