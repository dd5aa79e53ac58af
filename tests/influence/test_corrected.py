"""First order corrected on some groups of reference rows, and other ways to compute the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stages.influence.matmul import products_in
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
