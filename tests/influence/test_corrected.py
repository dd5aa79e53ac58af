"""First order corrected on some groups of reference rows, and other ways to compute the same."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages.influence.gradient import group_rows
from stages.influence.matmul import products_in
from stages.influence.probe import Prober
from stages.influence.results import FirstOrderResult, ProbeOptions
from stages.influence.scores import row_weights, standard_error
from tests.influence.builders import examples, prober

CPU = torch.device("cpu")


def test_corrected_comes_closer_to_exact_than_first_order_does(state, candidates) -> None:
    probe = prober(state, examples(48, seed=5), lr=1e-2, gradient_groups=8, corrected_groups=4)
    exact = [probe.exact(c) for c in candidates]
    first = probe.first_orders(candidates)
    corrected = [probe.corrected(c, f) for c, f in zip(candidates, first, strict=True)]

    def error(results) -> float:
        return float(np.sqrt(np.mean([(r.score - e.score) ** 2 for r, e in zip(results, exact, strict=True)])))

    assert error(corrected) < 0.5 * error(first)


def test_the_correction_is_the_same_whether_some_or_all_rows_were_evaluated(state, reference, candidates) -> None:
    probe = prober(state, reference, gradient_groups=6, corrected_groups=3)
    assert len(probe.corrected_rows) == len(reference) // 2
    first = probe.first_order(candidates[0])
    some, whole = probe.corrected(candidates[0], first), probe.exact(candidates[0])
    score, stderr = probe.correct(first, whole.nll)
    assert some.score == pytest.approx(score, abs=5e-8)
    assert some.stderr == pytest.approx(stderr, rel=1e-2)
    evaluated = np.isfinite(some.nll)
    assert np.flatnonzero(evaluated).tolist() == probe.corrected_rows
    assert some.nll[evaluated] == pytest.approx(whole.nll[evaluated], rel=1e-6)


def test_its_error_bar_includes_the_choice_of_the_groups(state, reference, candidates) -> None:
    probe = prober(state, reference, lr=1e-2, gradient_groups=6, corrected_groups=3)
    first = probe.first_order(candidates[0])
    assert probe.corrected(candidates[0], first).stderr > first.stderr


@pytest.mark.parametrize("corrected_groups", [2, 4])
def test_its_error_bar_covers_the_truth_as_often_as_it_should(corrected_groups: int) -> None:
    """Of simulated rows whose influence and what first order misses of it are known; 8 groups have 7 degrees of
    freedom, for which 1.96 covers 91 %, and the groups evaluated have fewer."""
    dice, rows, groups, runs = np.random.default_rng(0), 64, 8, 1000
    dealt, covered, by_first = group_rows(rows, groups), 0, 0
    for _ in range(runs):
        tokens = dice.integers(20, 200, rows)
        weights_R = row_weights(tokens, "token")
        linear, missed = (
            mean * tokens + dice.normal(0, spread, rows) * np.sqrt(tokens)
            for mean, spread in ((0.01, 0.2), (0.002, 0.1))
        )
        shares = np.array([weights_R[group] @ tokens[group] for group in dealt])
        parts = np.array([weights_R[group] @ linear[group] for group in dealt])
        first = FirstOrderResult(float(parts.sum()), standard_error(parts, shares), 0.0, groups=parts)
        probe = SimpleNamespace(
            options=ProbeOptions(gradient_groups=groups, corrected_groups=corrected_groups),
            corrected_rows=dealt[0],
            linearised=SimpleNamespace(gradient=SimpleNamespace(rows=dealt, shares=shares)),
            _weights_R=weights_R,
            _drifted_nll=linear + missed,
        )
        score, stderr = Prober.correct(probe, first, np.zeros(rows))  # type: ignore[arg-type]
        covered += abs(score - 0.012) < 1.96 * stderr
        by_first += abs(score - 0.012) < 1.96 * first.stderr
    assert 0.84 < covered / runs < 0.95
    assert by_first < covered


def test_group_gradients_in_bf16_as_on_a_gpu_are_precise_enough_to_correct_with(state, candidates) -> None:
    fine, coarse = (prober(state, examples(24, seed=5), lr=5e-6, gradient_groups=4) for _ in range(2))
    groups = coarse.linearised.gradient.groups
    groups |= {name: each.to(torch.bfloat16) for name, each in groups.items()}
    at_zero = coarse._products(coarse.linearised.gradient)
    for name in groups:
        at_zero.consume(name, [None])
    coarse.linearised = replace(coarse.linearised, at_zero=at_zero.there()[0].numpy())
    exact = [fine.exact(c) for c in candidates]
    scores, others = (
        [probe.correct(probe.first_order(c), e.nll)[0] for c, e in zip(candidates, exact, strict=True)]
        for probe in (fine, coarse)
    )
    moved = np.sqrt(np.mean(np.square(np.subtract(scores, others))))
    assert 0 < moved < 5e-3 * np.std([each.score for each in exact])


def test_before_the_step_it_includes_the_drift(state, reference, candidates) -> None:
    options = {"gradient_groups": 6, "corrected_groups": 3}
    drifted = prober(state, reference, **options)
    before = prober(state, reference, baseline="before_step", **options)
    gain = before.exact(candidates[0]).score - drifted.exact(candidates[0]).score
    corrected = [p.corrected(candidates[0], p.first_order(candidates[0])).score for p in (before, drifted)]
    assert corrected[0] - corrected[1] == pytest.approx(gain, abs=1e-7)


@pytest.mark.parametrize("options", [{"corrected_groups": 0}, {"corrected_groups": 6}, {"gradient_groups": 0}])
def test_without_groups_to_choose_from_there_is_no_correction(state, reference, candidates, options) -> None:
    probe = prober(state, reference, **{"gradient_groups": 6, "corrected_groups": 3, **options})
    assert probe.corrected_rows == []
    first = probe.first_order(candidates[0])
    assert math.isnan(probe.correct(first, probe.exact(candidates[0]).nll)[0])


def test_layers_that_are_computed_again_give_the_same_scores(state, reference, candidates) -> None:
    usual, again = prober(state, reference), prober(state, reference, gradient_checkpointing=True)
    for candidate in candidates[:3]:
        assert again.first_order(candidate).score == pytest.approx(usual.first_order(candidate).score, rel=1e-5)
        assert again.exact(candidate).score == pytest.approx(usual.exact(candidate).score, abs=5e-8)


def test_a_reference_gradient_in_bf16_keeps_the_scores(state, reference, candidates) -> None:
    usual, low = prober(state, reference), prober(state, reference, gradient_dtype="bfloat16")
    assert low.linearised.gradient.whole["model.norm.weight"].dtype == torch.bfloat16
    pairs = [(low.first_order(c).score, usual.first_order(c).score) for c in candidates]
    assert np.allclose(*zip(*pairs, strict=True), rtol=0, atol=1e-2 * np.std([b for _, b in pairs]))


def test_the_fastest_fp32_products_are_fp32_and_the_setting_is_put_back() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(600, 600, generator=generator) for _ in range(2))
    truth = a.double() @ b.double()
    usual = float((a @ b - truth).abs().max())
    before = torch.get_float32_matmul_precision()
    with products_in("fp32", CPU):
        fast = float((a @ b - truth).abs().max())
    assert fast < 10 * usual
    with pytest.raises(RuntimeError), products_in("bf16", CPU):
        assert torch.get_float32_matmul_precision() == "medium"
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == before
