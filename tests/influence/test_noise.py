"""σ, standard errors, the audit, the choice of candidates, the released arithmetic."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stages.influence import matmul
from stages.influence.audit import audit
from stages.influence.dither import Dither
from stages.influence.examples import Example
from stages.influence.noise import drift_noise, exact_noise, first_order_noise
from stages.influence.paper import paper_reference_loss, paper_score
from stages.influence.scores import paired_score, row_weights, standard_error
from stages.influence.select import Scored, audit_sample, deciding
from tests.influence.builders import examples, llama, prober
from tests.influence.conftest import LR
from tests.influence.oracle import Oracle


@dataclass(frozen=True)
class Judged:
    """A reference set, candidates, and their true scores."""

    reference: list[Example]
    candidates: list[Example]
    first_order: list[float]
    exact: list[float]


class CoarseProducts(TorchDispatchMode):
    """Matrices are multiplied in fp32, of numbers with fewer bits: TF32 has 10 after the first, bf16 has 7."""

    OPERANDS: ClassVar = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.dropped = 23 - bits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        coarse = self.OPERANDS.get(func.overloadpacket.__name__, ())
        args = [self.rounded(each) if place in coarse else each for place, each in enumerate(args)]
        return func(*args, **(kwargs or {}))

    def rounded(self, values: torch.Tensor) -> torch.Tensor:
        bits = values.contiguous().view(torch.int32)
        return ((bits + (1 << self.dropped >> 1)) >> self.dropped << self.dropped).view(torch.float32)


@pytest.fixture
def emulated_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """`products` as a GPU has them; a CPU without AMX has fp32 only."""

    def products_in(products: str, device: torch.device) -> AbstractContextManager[object]:
        return nullcontext() if products == "fp32" else CoarseProducts({"tf32": 10, "bf16": 7}[products])

    for module in ("loss", "matmul"):
        monkeypatch.setattr(f"stages.influence.{module}.products_in", products_in)


@pytest.mark.parametrize("lr", [LR, 5e-6])
def test_two_sigma_cover_the_error_against_the_oracle_as_often_as_they_should(state, lr) -> None:
    # Over several reference sets: the base's rounding is in every score of one set alike.
    covered, errors, sigmas = [], [], []
    for seed in range(12):
        reference, candidates = examples(12, seed=seed), examples(3, seed=100 + seed)
        probe, truth = prober(state, reference, lr=lr), Oracle(llama(), state, reference, lr=lr)
        sigma = exact_noise(probe, candidates, draws=4)["exact"]
        error = np.subtract([probe.exact(c).score for c in candidates], truth.scores(candidates))
        covered += list(np.abs(error) < 2 * sigma)
        errors += list(error)
        sigmas.append(sigma)
    # By Student's t some 91 % are; of 36 scores, those of a set alike in part, 80 % is within chance.
    assert np.mean(covered) > 0.8
    assert 0.6 < np.sqrt(np.mean(np.square(sigmas)) / np.mean(np.square(errors))) < 1.7


@pytest.fixture(scope="module")
def judged(state) -> list[Judged]:
    """Several reference sets: the reference gradient's own rounding is in every score of one set alike."""
    sets = [(examples(8, seed=seed), examples(2, seed=100 + seed)) for seed in range(6)]
    oracles = [Oracle(llama(), state, reference, lr=LR) for reference, _ in sets]
    return [
        Judged(*given, [oracle.first_order(c) for c in given[1]], oracle.scores(given[1]))
        for given, oracle in zip(sets, oracles, strict=True)
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_dtype": "bfloat16"}],
    ids=["fp32", "gradient in bf16"],
)
def test_first_orders_sigma_is_as_large_as_its_errors(state, judged: list[Judged], options) -> None:
    errors, sigmas = [], []
    for given in judged:
        probe = prober(state, given.reference, gradient_groups=0, **options)
        errors.append(np.subtract([each.score for each in probe.first_orders(given.candidates)], given.first_order))
        sigmas.append(first_order_noise(probe, given.candidates))
    # Of one set σ is an estimate from two differences; pooled, it can be asked whether it covers.
    sigma = np.sqrt(np.mean(np.square(sigmas)))
    assert np.mean(np.abs(errors) < 2 * sigma) >= 0.8
    assert 0.4 < sigma / np.sqrt(np.mean(np.square(errors))) < 2.5
    assert sigma < 1e-2 * np.std([given.first_order for given in judged])


def test_coarse_products_are_the_reference_pass_s_alone(state, judged: list[Judged], emulated_products: None) -> None:
    # Rounded to the nearest, weights near those of a released model would lose what the warm-up did to them.
    given = judged[0]
    precise, coarse = prober(state, given.reference), prober(state, given.reference, products="bf16")
    ours, theirs = (each.first_orders(given.candidates) for each in (coarse, precise))
    assert [each.score for each in ours] == [each.score for each in theirs]
    assert coarse.exact(given.candidates[0]).score != precise.exact(given.candidates[0]).score


def test_exact_scores_sigma_is_as_large_as_the_errors_of_coarse_products(
    state, judged: list[Judged], emulated_products: None
) -> None:
    errors, sigmas = [], []
    for given in judged[:3]:
        probe = prober(state, given.reference, products="tf32")
        errors.append(np.subtract([probe.exact(c).score for c in given.candidates], given.exact))
        sigmas.append(exact_noise(probe, given.candidates, draws=2)["exact"])
    assert 0.4 < np.sqrt(np.mean(np.square(sigmas)) / np.mean(np.square(errors))) < 2.5


@pytest.mark.parametrize(
    ("options", "lr"),
    [({"forward_dtype": "bfloat16"}, 5e-5), ({"products": "bf16"}, 5e-5), ({"products": "tf32"}, 6e-6)],
    ids=["weights in bf16", "bf16 products", "tf32"],
)
def test_steps_of_weights_that_are_coarse_numbers_already_are_not_lost(
    state, options, lr, emulated_products: None
) -> None:
    # As a released model's are: a step of less than half the spacing would be rounded away in every one of them.
    released = replace(state, weights={name: weight.bfloat16().float() for name, weight in state.weights.items()})
    errors, sigmas = [], []
    for seed in range(6):
        reference, candidates = examples(8, seed=seed), examples(2, seed=100 + seed)
        probe = prober(released, reference, lr=lr, seed=seed, baseline="before_step", **options)
        oracle = Oracle(llama(), released, reference, lr=lr)
        truth = [oracle.score(each, baseline="before_step") for each in candidates]
        errors.append(np.subtract([probe.exact(each).score for each in candidates], truth))
        sigmas.append(exact_noise(probe, candidates, draws=2)["exact"])
    sigma = np.sqrt(np.mean(np.square(sigmas)))
    assert 0.5 < np.sqrt(np.mean(np.square(errors))) / sigma < 1.8
    assert abs(np.mean(errors)) < 3 * sigma / math.sqrt(len(errors)), "they take a side"


@pytest.mark.parametrize(("dtype", "spacing"), [(torch.bfloat16, 2.0**-23), (torch.float32, 2.0**-10)])
def test_rounding_errs_alike_whether_a_number_was_round_already_or_not(dtype, spacing) -> None:
    generator, coarsest = torch.Generator().manual_seed(5), max(spacing, torch.finfo(dtype).eps)
    at_first = torch.cat([torch.randn(100_000, generator=generator).bfloat16().float(), torch.zeros(10)])
    between = coarsest * 2.0 ** at_first.abs().log2().floor()  # two numbers of this format
    for stepped in (0.0, 0.1, 0.5):
        values, errors = at_first + stepped * between, []
        for draw in range(3):
            rounded = values.clone()
            Dither(draw, "score", spacing).apply(rounded, dtype, "some")
            assert torch.equal(rounded.to(dtype).float(), rounded)
            errors.append((rounded - values)[:-10] / between[:-10])
        assert abs(float(torch.stack(errors).mean())) < 0.005
        assert float(torch.stack(errors).square().mean()) == pytest.approx(1 / 4, rel=0.03)
        assert not rounded[-10:].any()


@pytest.mark.parametrize(("products", "bits"), [("fp32", 23), ("tf32", 10), ("bf16", 7)])
def test_the_spacing_of_multiplied_numbers_is_what_the_products_show(products, bits, emulated_products: None) -> None:
    assert matmul.spacing(products, torch.device("cpu")) == pytest.approx(2.0**-bits, rel=0.02)


def test_before_the_step_first_orders_sigma_has_the_rounding_of_the_base(state, candidates) -> None:
    errors, own, drifts = [], [], []
    for seed in range(6):
        reference = examples(12, seed=seed)
        drifted = prober(state, reference, gradient_groups=0)
        before = prober(state, reference, gradient_groups=0, baseline="before_step")
        truth = Oracle(llama(), state, reference, lr=LR)
        change = truth.reference_nll(truth.start).sum() - truth.reference_nll(truth.stepped(None)).sum()
        found = before.first_order(candidates[0]).score - drifted.first_order(candidates[0]).score
        errors.append(found - change / before.reference_tokens.sum())
        own.append(first_order_noise(before, candidates[:1]))
        drifts.append(drift_noise(before))
    assert np.mean(np.abs(errors) < 2 * np.array(drifts)) >= 0.8
    assert np.mean(np.abs(errors) < 2 * np.array(own)) < 0.5
    assert np.mean(drifts) < 6 * np.std(errors)
    assert drift_noise(drifted) == 0


def test_bf16_has_the_larger_sigma(state, reference, candidates) -> None:
    low = exact_noise(prober(state, reference, forward_dtype="bfloat16"), candidates[:3])["exact"]
    assert low > 100 * exact_noise(prober(state, reference), candidates[:3])["exact"]


def test_the_standard_error_covers_the_truth_as_often_as_it_should() -> None:
    dice, hits, runs = np.random.default_rng(0), 0, 2000
    for _ in range(runs):
        tokens = dice.integers(20, 200, 40)
        gain = 0.01 * tokens + dice.normal(0, 0.2, 40) * np.sqrt(tokens)
        score, stderr = paired_score(100 + gain, np.full(40, 100.0), tokens, "token")
        hits += abs(score - 0.01) < 1.96 * stderr
    assert 0.92 < hits / runs < 0.97


def test_row_means_weigh_rows_alike() -> None:
    before, after, tokens = np.array([10.0, 30.0]), np.array([8.0, 20.0]), np.array([2, 100])
    assert paired_score(before, after, tokens, "row")[0] == pytest.approx((1.0 + 0.1) / 2)
    assert paired_score(before, after, tokens, "token")[0] == pytest.approx(12 / 102)
    assert (row_weights(tokens, "row") * tokens).sum() == pytest.approx(1)


def test_one_reference_row_has_no_standard_error() -> None:
    assert math.isnan(standard_error(np.array([1.0]), np.array([1.0])))


def test_good_agreement_keeps_two_stages_and_bad_agreement_falls_back() -> None:
    exact = np.random.default_rng(1).normal(size=50)
    good = audit(2 * exact + 0.001, exact)
    assert (good.decision, good.recall_top, good.recall_bottom) == ("two_stage", 1.0, 1.0)
    assert good.spearman == pytest.approx(1) and good.pearson == pytest.approx(1)
    assert (good.slope, good.intercept) == pytest.approx((0.5, -0.0005)) and good.residual == pytest.approx(
        0, abs=1e-12
    )
    bad = audit(np.random.default_rng(2).normal(size=50), exact)
    assert bad.decision == "exact" and bad.spearman < 0.9


@pytest.mark.parametrize("first_order", [[], [1.0, 2.0], [1.0, 1.0, 1.0], [math.nan, 1.0, 2.0]])
def test_what_cannot_be_measured_is_not_trusted(first_order: list[float]) -> None:
    result = audit(first_order, list(range(len(first_order))))
    figures = result.figures()
    assert result.decision == "exact" and figures["spearman"] is figures["slope"] is figures["residual"] is None


def test_the_line_from_first_order_to_exact_is_not_turned_by_a_few_extreme_candidates() -> None:
    dice = np.random.default_rng(6)
    first_order = dice.normal(size=32)
    exact = 0.2 + 0.7 * first_order + dice.normal(0, 0.05, 32)
    found = audit(first_order, exact)
    assert (found.intercept, found.slope) == pytest.approx((0.2, 0.7), abs=0.05)
    assert found.residual == pytest.approx(0.05, rel=0.3)
    first_order[0], exact[0] = 12.0, 4.0  # a gradient so large that the line bends
    assert audit(first_order, exact).slope == pytest.approx(0.7, abs=0.05)


def test_exact_scores_that_are_noise_themselves_cannot_judge() -> None:
    # As measured with weights of the reference passes in bf16 at a learning rate of 5e-6: σ ten times the spread.
    dice = np.random.default_rng(3)
    first_order = dice.normal(0, 1.2e-4, 32)
    noisy = audit(first_order, first_order + dice.normal(0, 1.5e-3, 32), sigma=1.5e-3)
    assert noisy.decision == "noise" and noisy.figures()["residual"] is None
    assert noisy.spread == pytest.approx(1.5e-3, rel=0.3)
    # The same disagreement with a small σ is first order's own.
    assert audit(first_order, first_order + dice.normal(0, 1.5e-3, 32), sigma=1e-5).decision == "exact"


@pytest.mark.parametrize(("share", "decision"), [(0.3, "two_stage"), (0.37, "noise")])
def test_a_third_of_the_spread_is_the_most_noise(share: float, decision: str) -> None:
    exact = np.random.default_rng(4).normal(size=32)
    assert audit(exact, exact, sigma=share * float(np.std(exact, ddof=1))).decision == decision


def test_recall_counts_the_exact_tenths() -> None:
    exact = np.arange(20.0)
    swapped = exact.copy()
    swapped[[19, 10]] = swapped[[10, 19]]
    result = audit(swapped, exact)
    assert (result.recall_top, result.recall_bottom) == (0.5, 1.0)


def test_the_extremes_of_each_prompt_decide() -> None:
    rows = [Scored(f"{p}{i}", p, score) for p in "ab" for i, score in enumerate([3.0, -1.0, 0.0, 5.0])]
    rows += [Scored("alone", "c", 9.0), Scored("bad", "a", math.nan)]
    assert deciding(rows) == {"a1", "a3", "b1", "b3"}
    assert deciding(reversed(rows), per_side=2) == {row.candidate_id for row in rows[:8]}


def test_equal_scores_are_chosen_by_id_whatever_the_order() -> None:
    rows = [Scored(name, "p", 0.0) for name in "cabd"]
    assert deciding(rows) == deciding(sorted(rows)) == {"a", "d"}


def test_the_audit_sample_does_not_depend_on_the_order_of_the_rows() -> None:
    ids = [f"{i:016x}" for i in range(4000)]
    assert audit_sample(ids, 50) == audit_sample(ids[::-1], 50) and len(audit_sample(ids, 50)) == 50


def test_the_released_arithmetic_in_fp32_is_the_mean_of_batch_means(state, reference, candidates, oracle) -> None:
    released = [
        paper_score(llama(), state, c, reference, dtype=torch.float32, pad_to=64, batch_size=5) for c in candidates[:3]
    ]
    tokens = np.array([e.tokens for e in reference])
    for candidate, score in zip(candidates, released, strict=False):
        after = oracle.reference_nll(oracle.stepped(oracle.gradient(oracle.start, candidate)))
        change = oracle.reference_nll(oracle.start) - after
        means = [change[i : i + 5].sum() / tokens[i : i + 5].sum() for i in (0, 5, 10)]
        assert score == pytest.approx(np.mean(means), abs=1e-6)


def test_the_released_score_divides_the_gradient_by_the_number_of_gpus(state, reference, candidates, oracle) -> None:
    tokens = np.array([e.tokens for e in reference])
    before = oracle.reference_nll(oracle.start)
    gradient = oracle.gradient(oracle.start, candidates[0])
    for gpus in (1, 8):
        after = oracle.reference_nll(oracle.stepped({name: each / gpus for name, each in gradient.items()}))
        released = paper_score(
            llama(), state, candidates[0], reference, dtype=torch.float32, pad_to=64, batch_size=12, world_size=gpus
        )
        assert released == pytest.approx((before - after).sum() / tokens.sum(), abs=1e-6)


def test_rows_longer_than_the_released_padding_lose_their_end(state) -> None:
    long = [Example(row.ids, min(row.labels_from, 20)) for row in examples(6, seed=3, shortest=20, longest=40)]
    cut = [Example(row.ids[:24], row.labels_from) for row in long]
    assert max(len(row.ids) for row in long) > 24
    scores = [
        paper_score(llama(), state, cut[0], rows, dtype=torch.float32, pad_to=pad_to, batch_size=3)
        for rows, pad_to in ((long, 24), (cut, 40), (long, 40))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert abs(scores[0] - scores[2]) > 1e-5


def test_the_released_score_in_bf16_is_of_a_step_rounded_operation_by_operation(state, reference, candidates) -> None:
    """AdamW by hand in bf16, each result rounded: at this rate most weights do not move at all."""
    lr, bf16 = 5e-6, torch.bfloat16
    model = llama().eval()
    for name, parameter in model.named_parameters():
        parameter.data = state.weights[name].to(bf16)
    before = paper_reference_loss(model, reference, pad_to=64)
    model(**_padded(candidates[0], 64)).loss.backward()
    beta1, beta2 = state.betas
    step = state.step + 1
    moved = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gradient, was = parameter.grad, parameter.clone()
            m, v = state.exp_avg[name].to(bf16), state.exp_avg_sq[name].to(bf16)
            m = m.lerp(gradient, 1 - beta1)
            v = (v * beta2).addcmul(gradient, gradient, value=1 - beta2)
            parameter.mul_(1 - lr * state.weight_decay)
            root = v.sqrt() / math.sqrt(1 - beta2**step) + state.eps
            parameter.addcdiv_(m, root, value=-lr / (1 - beta1**step))
            moved.append((parameter != was).flatten())
    after = paper_reference_loss(model, reference, pad_to=64)
    assert 0 < torch.cat(moved).float().mean() < 0.1
    released = paper_score(llama(), state, candidates[0], reference, lr=lr, pad_to=64)
    assert abs(released) > 1e-5
    assert released == pytest.approx(before - after, abs=1e-6)


def _padded(example: Example, width: int) -> dict[str, torch.Tensor]:
    ids = torch.tensor([example.ids + (0,) * (width - len(example.ids))])
    place = torch.arange(width)
    labels = ids.masked_fill((place < example.labels_from) | (place >= len(example.ids)), -100)
    return {"input_ids": ids, "attention_mask": (place < len(example.ids)).long()[None], "labels": labels}
