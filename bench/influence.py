"""Influence: the published procedure, ours, and the truth, on the same student, candidates and reference rows.

    python -m bench.influence [--quick] [--reference FILE.jsonl] [--references N] [--candidates N] [--share N]

Published (arXiv 2410.14208, released code): for each candidate the checkpoint is loaded from disk, one AdamW step is
taken on the candidate padded to 1024 tokens, and the reference set is evaluated in batches of 8 padded to 1024. Here in
fp32, as ours is, so that arithmetic and layout are compared and not precision. `exact` and `first_order` are those of
stages.influence.probe, with error bars; `two_stage` is first order on all and `corrected` on the best and the worst of
each prompt's four candidates: the seconds of both, by how many candidates need them. Ratios are of seconds, each times
the rate of fp32 products beside it: between two ways lie minutes, in which a shared machine may change by half.

The truth is an oracle in fp64 (tests/influence/oracle.py), straight from the formula. It is slow, so agreement is of
the first `--oracle-references` rows, speed of all. The floor is the time that the necessary matrix products alone would
take at the rate that this machine has just before and after (square products, of 2048 on a CPU); first order's is of
the scores alone, without the products for error bars. What is done once (base, reference gradient, a first step, which
allocates) is not spread over the candidates; the longer two are printed. With `--share N` passes over the reference are
timed on one of N of their batches, which are of like size, and multiplied.

Each way runs in a process of its own, one after the other, so that its peak memory is its own; on a GPU in one process,
where the peak is set back. The last line is JSON, and is written to bench/results/ for docs/performance.md
(python -m bench.performance).
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.machine import Beside, describe, device, fp32_setting, peak_gib, save, timed, timed_beside

PAPER_BATCH = 8
GROUPS = 8  # of reference rows, the probes' default: fewer rows cannot be dealt into them
PER_PROMPT = 4  # candidates of one prompt, of which two_stage corrects two
WARM_UP_ROWS, WARM_UP_STEPS, WARM_UP_LR = 4, 8, 1e-5
SHAPE = {  # of TinyLlama-1.1B (arXiv 2401.02385), with SmolLM2's vocabulary
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "tie_word_embeddings": False,
}
_held: dict[Path, Any] = {}  # the state after the warm-up, on a GPU, where all ways share a process
BUNDLED = Path(__file__).parent.parent / "stages" / "data" / "reference.jsonl"


@dataclass(frozen=True)
class Setup:
    """What every way is given; candidates and the warm-up are bundled rows that are not reference rows."""

    checkpoint: Path
    reference: list[dict[str, str]]
    candidates: list[dict[str, str]]
    warm_up: list[dict[str, str]]
    oracle_references: int
    lr: float
    lengths: tuple[int, ...] = (128, 256, 512, 1024)  # of candidates whose first order is timed
    longest: int = 1024
    share: int = 1
    student: str = "smollm2"


def main() -> int:
    """Print the table and the line of JSON; 1 if ours does not agree with the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows: under 10 minutes on two cores")
    parser.add_argument("--reference", type=Path, default=BUNDLED, help="JSONL with instruction and response")
    parser.add_argument("--references", type=int, help=f"reference rows; {GROUPS} with --quick, else 32")
    parser.add_argument("--oracle-references", type=int, help="of these, those that the truth is taken on; all")
    parser.add_argument("--candidates", type=int, help="candidates; 4 with --quick, else 12")
    parser.add_argument(
        "--share", type=int, default=1, help="time the passes over the reference on one of so many of their batches"
    )
    parser.add_argument("--lr", type=float, default=5e-6, help="learning rate of the probes' step")
    options = parser.parse_args()
    references = options.references or (GROUPS if options.quick else 32)
    candidates = options.candidates or (4 if options.quick else 12)
    given, bundled = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (options.reference, BUNDLED)
    )
    warm_up_rows = WARM_UP_ROWS * (4 if options.quick else WARM_UP_STEPS)
    taken = references if options.reference == BUNDLED else 0
    if references < GROUPS or len(given) < references or len(bundled) < taken + candidates + warm_up_rows:
        print(
            f"error: {options.reference} and {BUNDLED} have {len(given)} and {len(bundled)} rows; "
            f"asked for {references} references (at least {GROUPS}) and {candidates} candidates",
            file=sys.stderr,
        )
        return 64
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            Path(folder),
            given[:references],
            bundled[taken : taken + candidates],
            bundled[-warm_up_rows:],
            oracle_references=options.oracle_references or references,
            lr=options.lr,
            lengths=() if options.quick else Setup.lengths,
            share=options.share,
        )
        alone(warm_up, setup)
        published, mine = alone(run_published, setup), ours(setup)
        scores = mine.pop("agreement", None) or alone(run_agreement, setup)
        truth = alone(run_oracle, setup)
    return report(setup, published, mine, scores, truth)


def alone(way: Callable[[Setup], Any], setup: Setup) -> Any:
    """Calls `way` in a fresh process; on a GPU in this one, whose peak begins anew."""
    name = way.__name__.replace("_", " ")
    print(f"… {name}", file=sys.stderr, flush=True)
    if device() == "cuda":
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found, seconds = timed(partial(way, setup))
    else:
        # A killed worker is an error here; a multiprocessing.Pool would wait for its answer for ever.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found, seconds = timed(lambda: pool.submit(way, setup).result())
    print(f"  {name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def warm_up(setup: Setup) -> None:
    """Leaves a checkpoint with real moments: a few steps of torch's AdamW on rows that are nothing else's."""
    import torch
    from transformers import AutoTokenizer

    from stages.influence.state import AdamState
    from stages.models.source import ModelSource, resolve

    model_folder = resolve(ModelSource(model="builtin:smollm2"), setup.checkpoint / "cache")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(setup.checkpoint)
    model = student(setup.student, model_folder).to(device())
    model.config.save_pretrained(setup.checkpoint)
    optimizer = torch.optim.AdamW(model.parameters(), lr=WARM_UP_LR, weight_decay=0.0)
    examples = encode(setup, setup.warm_up, 128)
    steps = len(setup.warm_up) // WARM_UP_ROWS
    for step in range(steps):
        optimizer.zero_grad()
        for example in examples[step * WARM_UP_ROWS :][:WARM_UP_ROWS]:
            ids = torch.tensor([example.ids], device=device())
            labels = ids.masked_fill(torch.arange(ids.shape[1], device=device()) < example.labels_from, -100)
            (model(ids, labels=labels).loss / WARM_UP_ROWS).backward()
        optimizer.step()
    optimizer.zero_grad()  # to write a file copies what goes into it
    named = dict(model.named_parameters())
    state = AdamState(
        weights={name: p.detach() for name, p in named.items()},
        exp_avg={name: optimizer.state[p]["exp_avg"] for name, p in named.items()},
        exp_avg_sq={name: optimizer.state[p]["exp_avg_sq"] for name, p in named.items()},
        step=steps,
        lr=WARM_UP_LR,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
    )
    if device() == "cuda":
        _held[setup.checkpoint] = state
    if device() == "cpu" or setup.student == "smollm2":  # whose checkpoint the published procedure reads again
        state.save(setup.checkpoint)


def checkpoint(setup: Setup, model: Any) -> Any:
    """The state that `warm_up` left; `model` has its shapes."""
    from stages.influence.state import load_state

    return _held[setup.checkpoint] if setup.checkpoint in _held else load_state(setup.checkpoint, model)


def student(name: str, smollm2: Path) -> Any:
    """In fp32: SmolLM2-135M itself, or random weights in the shape of TinyLlama-1.1B (the paper's student)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if name == "smollm2":
        return AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    config = AutoConfig.from_pretrained(smollm2)
    config.update(SHAPE)
    torch.manual_seed(0)
    with torch.device(device()):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def encode(setup: Setup, rows: list[dict[str, str]], tokens: int) -> list[Any]:
    from transformers import AutoTokenizer

    from stages.influence.examples import Encoder

    encoder = Encoder(AutoTokenizer.from_pretrained(setup.checkpoint), tokens)
    encoded = [encoder.encode(row["instruction"], row["response"]) for row in rows]
    return [example for example in encoded if not hasattr(example, "reason")]


def inputs(setup: Setup, references: int | None = None) -> tuple[list[Any], list[Any]]:
    """(reference, candidates), encoded."""
    return encode(setup, setup.reference[:references], setup.longest), encode(setup, setup.candidates, 1024)


def plain_student(setup: Setup) -> tuple[Any, Any]:
    """(the Hugging Face model with the checkpoint's weights, the checkpoint)."""
    from stages.influence.state import build_student

    model = build_student(setup.checkpoint)
    state = checkpoint(setup, model)
    for name, parameter in model.named_parameters():
        parameter.data = state.weights[name].clone()
    return model, state


def run_published(setup: Setup) -> dict[str, Any]:
    import torch

    from stages.influence.paper import paper_reference_loss, paper_score
    from stages.influence.state import load_state

    reference, candidates = inputs(setup)
    model, _ = plain_student(setup)
    model.to(device())
    first, others = reference[:PAPER_BATCH], reference[PAPER_BATCH:]

    def one() -> None:
        state = load_state(setup.checkpoint, model)
        # The loss before the step is the same for all candidates: it is not counted.
        paper_score(model, state, candidates[0], first, lr=setup.lr, dtype=torch.float32, before=0.0)

    found = beside(one)
    batches = [others[start : start + PAPER_BATCH] for start in range(0, len(others), PAPER_BATCH)]
    # Every row is padded to the same length, so what some of them take says what all do.
    if some := batches[:: setup.share]:
        passing = beside(*(partial(paper_reference_loss, model, batch) for batch in some))
        found += passing * (len(others) / sum(len(batch) for batch in some))
    return {"published": found, "peak": peak_gib(device())}


def beside(*calls: Callable[[], Any]) -> Beside:
    """The sum of `timed_beside` on this machine's device, each call beside products of its own."""
    found = (timed_beside(call, device(), fp32_setting(device())) for call in calls)
    return sum(found, Beside(0.0, 0.0))


def prober(setup: Setup, reference: list[Any], **options: Any) -> Any:
    import torch

    from stages.influence.probe import Prober
    from stages.influence.results import ProbeOptions
    from stages.influence.state import build_student

    model = build_student(setup.checkpoint)
    state, chosen = checkpoint(setup, model), ProbeOptions(lr=setup.lr, **options)
    return Prober(model, state, reference, chosen, device=torch.device(device()))


def run_exact(setup: Setup) -> dict[str, Any]:
    """Seconds of `exact` and of the pass of `corrected`: of a share of the packs, by their tokens, if so asked."""
    reference, candidates = inputs(setup)
    probe = prober(setup, reference, gradient_groups=GROUPS)
    probe.reference_losses(probe.step(candidates[0])[0], probe._batches[:1])
    step = beside(lambda: probe.step(candidates[0]))
    weights, passes = probe._stepped, {}
    for name, batches in (("exact", probe._batches), ("corrected", probe._corrected_batches)):
        some = batches[:: setup.share]
        # Pack by pack: a pass over all rows takes minutes.
        found = beside(*(partial(probe.reference_losses, weights, [each]) for each in some))
        passes[name] = found * (sum(each.tokens for each in batches) / sum(each.tokens for each in some))
    exact = step + passes["exact"]
    return {
        "base_s": passes["exact"].seconds,
        "exact": exact,
        "correction": step + passes["corrected"],
        "floor_exact": exact.share(flops(probe.loss.model, reference) + 3 * flops(probe.loss.model, candidates[:1])),
        "peak": peak_gib(device()),
        "tokens": sum(len(example.ids) for example in reference),
    }


def run_first_order(setup: Setup) -> dict[str, Any]:
    """Seconds of `first_order`, which do not depend on the reference rows once their gradient is there.

    And `run_agreement`, where that is on the same rows: a probe of them takes most of a minute to make.
    """
    import numpy as np

    from stages.influence.memory import together

    reference, candidates = inputs(setup)
    some = reference[: max(GROUPS, len(reference) // setup.share)]
    probe = prober(setup, some)
    _, gradient_s = timed(lambda: probe.linearised)
    share = sum(len(example.ids) for example in some) / sum(len(example.ids) for example in reference)
    gradient = replace(probe.linearised.gradient, groups={}, rows=[], shares=np.zeros(0))
    bare = replace(probe.linearised, gradient=gradient, at_zero=probe.linearised.at_zero[:1])

    def by_length(length: int) -> dict[str, float]:
        """Of a candidate of so many tokens: seconds with error bars, seconds without, share of the floor."""
        ids = candidates[0].ids * (length // len(candidates[0].ids) + 1)
        example = replace(candidates[0], ids=ids[:length])
        # As many as share a backward pass.
        turn = max(1, min(together(device(), ranks=1), probe.options.pack_tokens // length))
        alike = [example] * turn
        _, seconds = timed(partial(probe.first_orders, alike))
        runs = [beside(partial(probe.first_orders_along, bare, alike)) for _ in range(2)]
        shares = [run.share(3 * flops(probe.loss.model, alike)) for run in runs]
        return {
            "seconds": round(seconds / turn, 3),
            "scores_alone": round(min(run.seconds for run in runs) / turn, 3),
            "floor": round(statistics.median(shares), 3),
        }

    first = probe.first_orders(candidates)
    # As the stage asks for them: many at once.
    found = beside(lambda: probe.first_orders(candidates))
    shares = [
        beside(partial(probe.first_orders_along, bare, candidates)).share(3 * flops(probe.loss.model, candidates))
        for _ in range(2)
    ]
    line = {
        "gradient_s": gradient_s / share,
        "first_order": found * (1 / len(candidates)),
        "ends": len(deciding([result.score for result in first])) / len(candidates),
        "floor_first": statistics.median(shares),
        "by_tokens": {str(length): by_length(length) for length in setup.lengths},
        "candidate_tokens": statistics.median(len(example.ids) for example in candidates),
        "peak": peak_gib(device()),
    }
    return line | ({"agreement": agreement(probe, candidates)} if len(some) == setup.oracle_references else {})


def ours(setup: Setup) -> dict[str, Any]:
    """What every way of ours takes; `two_stage` is first order on all and `corrected` on each prompt's ends."""
    exact, first = alone(run_exact, setup), alone(run_first_order, setup)
    ways = {
        "corrected": first["first_order"] + exact["correction"],
        "two_stage": first["first_order"] + exact["correction"] * first["ends"],
    }
    peaks = {"peak_exact": exact["peak"], "peak": max(exact["peak"], first["peak"])}
    return {**exact, **first, **ways, **peaks}


def run_agreement(setup: Setup) -> dict[str, list[float]]:
    """`agreement` on the rows that the oracle takes."""
    reference, candidates = inputs(setup, setup.oracle_references)
    return agreement(prober(setup, reference), candidates)


def agreement(probe: Any, candidates: list[Any]) -> dict[str, list[float]]:
    """Every way's scores."""
    exact, first = [probe.exact(candidate) for candidate in candidates], probe.first_orders(candidates)
    corrected = [probe.correct(one, other.nll)[0] for one, other in zip(first, exact, strict=True)]
    scores = [result.score for result in first]
    ends = deciding(scores)
    two_stage = [corrected[i] if i in ends else score for i, score in enumerate(scores)]
    return {
        "exact": [result.score for result in exact],
        "corrected": corrected,
        "two_stage": two_stage,
        "first_order": scores,
    }


def run_oracle(setup: Setup) -> list[float]:
    from tests.influence.oracle import Oracle

    reference, candidates = inputs(setup, setup.oracle_references)
    model, state = plain_student(setup)
    return Oracle(model.to(device()), state, reference, lr=setup.lr).scores(candidates)


def flops(model: Any, examples: list[Any]) -> float:
    """Operations of a forward pass: weights once a token, the head once a label, attention's two products.

    Not the input embedding: looking a row up is no product.
    """
    config = model.config
    head = config.vocab_size * config.hidden_size
    embeddings = {
        id(each.weight): each.weight for each in (model.get_input_embeddings(), model.get_output_embeddings())
    }
    body = sum(p.numel() for p in model.parameters()) - sum(weight.numel() for weight in embeddings.values())
    total = 0.0
    for example in examples:
        length = len(example.ids) - 1
        attention = 2 * config.num_hidden_layers * config.hidden_size * length * (length + 1)  # causal: half of 4·d·T²
        total += 2 * body * length + 2 * head * example.tokens + attention
    return total


def report(
    setup: Setup,
    published: dict[str, Any],
    mine: dict[str, Any],
    scores: dict[str, list[float]],
    truth: list[float],
) -> int:
    from scipy.stats import pearsonr, spearmanr

    spearman = {way: float(spearmanr(found, truth).statistic) for way, found in scores.items()}
    pearson = {way: float(pearsonr(found, truth).statistic) for way, found in scores.items()}
    theirs: Beside = published["published"]
    rows: list[tuple[str, Beside, float | None, float]] = [
        ("published", theirs, None, published["peak"]),
        ("exact", mine["exact"], mine["floor_exact"], mine["peak_exact"]),
        ("corrected", mine["corrected"], None, mine["peak"]),
        ("two_stage", mine["two_stage"], None, mine["peak"]),
        ("first_order", mine["first_order"], mine["floor_first"], mine["peak"]),
    ]
    references = len(setup.reference)
    print(f"{references} reference rows ({mine['tokens']} tokens), {len(setup.candidates)} candidates of about")
    print(f"{mine['candidate_tokens']:.0f} tokens, lr {setup.lr:g}; agreement on {setup.oracle_references} rows")
    print(f"{describe(device())}, fp32 products beside each way; ratios are of seconds times GFLOP/s")
    print(f"{'way':<13}{'s/candidate':>12}{'GFLOP/s':>9}{'ratio':>8}", end="")
    print(f"{'Spearman':>10}{'Pearson':>10}{'floor':>8}{'peak GiB':>10}")
    for name, took, floor, peak in rows:
        agrees = "".join(f"{known[name]:>10.5f}" if name in known else " " * 10 for known in (spearman, pearson))
        shown = f"{floor:>8.3f}" if floor is not None else " " * 8
        print(
            f"{name:<13}{took.seconds:>12.2f}{took.rate / 1e9:>9.0f}{took.times_faster(theirs):>8.1f}"
            f"{agrees}{shown}{peak:>10.2f}"
        )
    for length, each in mine["by_tokens"].items():
        print(
            f"first order, {length:>4} tokens: {each['seconds']:.2f} s, scores alone {each['scores_alone']:.2f} s, "
            f"{each['floor']:.2f} of the floor"
        )
    print(f"once: base {mine['base_s']:.1f} s, reference gradient {mine['gradient_s']:.1f} s")
    line = {
        "machine": describe(device()),
        "refs": references,
        "candidates": len(setup.candidates),
        **{f"ratio_{name}": round(took.times_faster(theirs), 2) for name, took, *_ in rows[1:]},
        **{f"spearman_{name}": round(value, 5) for name, value in spearman.items()},
        "floor_exact": round(mine["floor_exact"], 3),
        "floor_first_order": round(mine["floor_first"], 3),
        "peak_gib": round(mine["peak"], 2),
        "peak_gib_exact": round(mine["peak_exact"], 2),
        "peak_gib_published": round(published["peak"], 2),
        "seconds": {name: round(took.seconds, 3) for name, took, *_ in rows},
        "gflops_beside": {name: round(took.rate / 1e9) for name, took, *_ in rows},
        "once_s": {"base": round(mine["base_s"], 1), "gradient": round(mine["gradient_s"], 1)},
        "tokens": mine["tokens"],
        "candidate_tokens": mine["candidate_tokens"],
        "oracle_refs": setup.oracle_references,
        "timed_share": round(1 / setup.share, 3),
        "gflops": round(mine["exact"].rate / 1e9),
        "first_order_by_tokens": mine["by_tokens"],
    }
    save("influence", f"{references}", line)
    print(json.dumps(line))
    wrong = [way for way, least in (("exact", 0.999), ("first_order", 0.99)) if spearman[way] < least]
    for way in wrong:
        print(f"error: {way} does not rank the candidates as the truth does", file=sys.stderr)
    return 1 if wrong else 0


def deciding(scores: list[float]) -> set[int]:
    """Places of the best and the worst of each prompt's candidates; four after one another share a prompt."""
    found: set[int] = set()
    for start in range(0, len(scores), PER_PROMPT):
        group = range(start, min(start + PER_PROMPT, len(scores)))
        found |= {min(group, key=scores.__getitem__), max(group, key=scores.__getitem__)}
    return found


if __name__ == "__main__":
    sys.exit(main())
