"""Scores against the fp64 oracle, and what must not depend on how they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.overrides import TorchFunctionMode

from stages.contract.errors import ExitCode, StageError
from stages.influence.examples import Example
from stages.influence.results import ProbeOptions
from stages.influence.scorer import LocalScorer, Scoring
from stages.influence.scores import is_tie
from stages.influence.state import AdamState
from tests.influence.builders import examples, llama, prober, warmed_up
from tests.influence.conftest import LR
from tests.influence.oracle import Oracle

# fp32 losses of about 4.5 carry errors of about 1e-7 each, averaged over a few hundred tokens.
ROUNDING = 2e-7


@pytest.mark.parametrize("attention", ["segments", "padded"])
@pytest.mark.parametrize("baseline", ["zero_gradient_step", "before_step"])
@pytest.mark.parametrize("reduction", ["token", "row"])
def test_exact_agrees_with_the_oracle(state, reference, candidates, oracle, attention, baseline, reduction) -> None:
    probe = prober(state, reference, attention=attention, baseline=baseline, reduction=reduction)
    for candidate in candidates[:4]:
        truth = oracle.score(candidate, baseline=baseline, reduction=reduction)
        assert abs(truth) > 100 * ROUNDING
        assert probe.exact(candidate).score == pytest.approx(truth, abs=ROUNDING)


def test_first_order_agrees_with_the_oracles_first_order(state, reference, candidates, oracle) -> None:
    probe = prober(state, reference)
    for candidate in candidates[:4]:
        assert probe.first_order(candidate).score == pytest.approx(oracle.first_order(candidate), rel=1e-5)


def test_first_order_comes_close_to_exact_as_the_learning_rate_falls(state, reference, candidates) -> None:
    def relative_error(lr: float) -> float:
        truth = Oracle(llama(), state, reference, lr=lr)
        probe = prober(state, reference, lr=lr)
        pairs = [(probe.first_order(c).score, truth.score(c)) for c in candidates]
        return float(np.median([abs(a - b) / abs(b) for a, b in pairs]))

    assert relative_error(1e-5) < 1e-3 < relative_error(1e-3)


@pytest.mark.parametrize("lr", [5e-6, 1e-5, 1e-4])
def test_exact_and_first_order_rank_as_the_oracle_does(state, reference, candidates, lr: float) -> None:
    truth = Oracle(llama(), state, reference, lr=lr).scores(candidates)
    probe = prober(state, reference, lr=lr)
    assert spearmanr([probe.exact(c).score for c in candidates], truth).statistic >= 0.999
    assert spearmanr([each.score for each in probe.first_orders(candidates)], truth).statistic >= 0.99


def test_first_order_before_the_step_includes_the_drift(state, reference, candidates) -> None:
    drifted = prober(state, reference, lr=1e-5)
    before = prober(state, reference, lr=1e-5, baseline="before_step")
    gain = before.exact(candidates[0]).score - drifted.exact(candidates[0]).score
    assert abs(gain) > 10 * ROUNDING
    for candidate in candidates[:3]:
        difference = before.first_order(candidate).score - drifted.first_order(candidate).score
        assert difference == pytest.approx(gain, abs=ROUNDING)


def test_an_untied_head_agrees_with_the_oracle(reference, candidates) -> None:
    model = llama(tie=False)
    state = warmed_up(model)
    truth = Oracle(model, state, reference, lr=LR)
    probe = prober(state, reference, tie=False)
    assert "lm_head.weight" in state.weights
    assert probe.exact(candidates[0]).score == pytest.approx(truth.score(candidates[0]), abs=ROUNDING)
    assert probe.first_order(candidates[0]).score == pytest.approx(truth.first_order(candidates[0]), rel=1e-5)


def test_probing_leaves_weights_and_moments_as_they_were(state, reference, candidates) -> None:
    tensors = (state.weights, state.exp_avg, state.exp_avg_sq)
    before = [{name: tensor.clone() for name, tensor in each.items()} for each in tensors]
    probe = prober(state, reference)
    probe.exact(candidates[0])
    probe.first_order(candidates[1])
    for was, now in zip(before, tensors, strict=True):
        assert all(torch.equal(was[name], now[name]) for name in was)


def test_a_checkpoint_is_not_written_to(state, reference, candidates, tmp_path) -> None:
    llama().config.save_pretrained(tmp_path)
    state.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    scorer = LocalScorer(Scoring(tmp_path, reference, ProbeOptions(pack_tokens=64), "cpu"))
    scorer.first_orders(candidates[:1])
    scorer.exact(candidates[1])
    scorer.noise(candidates[:1], 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_scores_do_not_depend_on_what_was_probed_before(state, reference, candidates) -> None:
    probe = prober(state, reference)
    alone = prober(state, reference)
    for candidate in candidates[:3]:
        probe.exact(candidate)
        probe.first_order(candidate)
    assert probe.exact(candidates[3]).score == alone.exact(candidates[3]).score
    assert probe.first_order(candidates[3]).score == alone.first_order(candidates[3]).score


def test_first_order_does_not_depend_on_what_is_scored_beside_it(state, reference, candidates) -> None:
    probe = prober(state, reference)
    groups = list(probe._side_by_side(candidates))
    assert 1 < max(map(len, groups)) < len(candidates)
    alone = [probe.first_order(candidate) for candidate in candidates]
    for order in (candidates, candidates[1:], candidates[::-1]):
        for candidate, found in zip(order, probe.first_orders(order), strict=True):
            expected = alone[candidates.index(candidate)]
            # Products of matrices of another height are rounded otherwise.
            assert (found.score, found.stderr) == pytest.approx((expected.score, expected.stderr), rel=1e-5, abs=1e-9)
            assert found.loss == pytest.approx(expected.loss, rel=1e-6)
            assert found.groups == pytest.approx(expected.groups, rel=1e-4, abs=1e-9)


def test_the_same_candidates_side_by_side_have_the_same_scores(state, reference, candidates) -> None:
    first, second = (prober(state, reference).first_orders(candidates) for _ in range(2))
    assert [each.score for each in first] == [each.score for each in second]


def test_a_row_of_candidates_is_no_longer_than_a_packed_row(state, reference, candidates) -> None:
    probe = prober(state, reference, pack_tokens=32)
    groups = list(probe._side_by_side(candidates))
    assert [each for group in groups for each in group] == candidates
    assert all(len(group) == 1 or sum(len(each.ids) for each in group) <= 32 for group in groups)


def test_exact_keeps_the_loss_of_every_reference_row(state, reference, candidates, oracle) -> None:
    result = prober(state, reference).exact(candidates[0])
    truth = oracle.reference_nll(oracle.stepped(oracle.gradient(oracle.start, candidates[0])))
    assert result.nll == pytest.approx(truth, rel=1e-6)


def test_the_learning_rate_of_the_checkpoint_holds_unless_another_is_given(state, reference, candidates) -> None:
    own, same = prober(state, reference), prober(state, reference, lr=state.lr)
    other = prober(state, reference, lr=state.lr / 10)
    scores = [each.exact(candidates[0]).score for each in (own, same, other)]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("baseline", ["zero_gradient_step", "before_step"])
def test_standard_errors_of_both_methods_estimate_the_same(state, candidates, baseline) -> None:
    reference = examples(96, seed=5)
    probe = prober(state, reference, lr=1e-5, gradient_groups=32, baseline=baseline)
    ratios = [probe.first_order(c).stderr / probe.exact(c).stderr for c in candidates]
    assert 0.8 < float(np.mean(ratios)) < 1.2


def test_without_gradient_groups_first_order_has_no_standard_error(state, reference, candidates) -> None:
    with_groups = prober(state, reference).first_order(candidates[0])
    without = prober(state, reference, gradient_groups=0).first_order(candidates[0])
    assert math.isnan(without.stderr) and with_groups.stderr > 0
    assert without.score == pytest.approx(with_groups.score, rel=1e-5)


def test_bf16_forward_still_steps_in_fp32(state, reference, candidates) -> None:
    low = prober(state, reference, forward_dtype="bfloat16")
    assert low.exact(candidates[0]).score == pytest.approx(
        prober(state, reference).exact(candidates[0]).score, abs=5e-3
    )
    # gradients and the update do not see the forward dtype
    high = prober(state, reference).first_order(candidates[0])
    assert low.first_order(candidates[0]).score == pytest.approx(high.score, rel=1e-6)


def test_a_score_below_two_sigma_is_a_tie() -> None:
    assert is_tie(1.9e-6, 1e-6) and is_tie(-1.9e-6, 1e-6)
    assert not is_tie(2.1e-6, 1e-6) and not is_tie(-2.1e-6, 1e-6)


def test_a_candidate_whose_loss_is_not_finite_is_named_and_the_next_one_unharmed(state, reference, candidates) -> None:
    poisoned = _with_infinite_row(state, token=7)
    clean = [Example(tuple(t for t in e.ids if t != 7), 1) for e in (*reference, *candidates)]
    reference, candidates = clean[: len(reference)], clean[len(reference) :]
    # Tied, the infinite row would reach every logit through the head.
    probe = prober(poisoned, reference, tie=False)
    sick = Example((5, 7, 7, 9, 11), 1)
    before = probe.first_order(candidates[0]).score
    assert probe.exact(sick).reason == probe.first_order(sick).reason == "non_finite_loss"
    assert math.isnan(probe.exact(sick).score)
    assert math.isfinite(before) and probe.first_order(candidates[0]).score == before
    assert probe.exact(candidates[0]).reason is None


def test_a_reference_row_whose_loss_is_not_finite_stops_the_probe(state) -> None:
    poisoned = _with_infinite_row(state, token=7)
    reference = [Example((5, 9, 11), 1), Example((5, 7, 7, 9), 1)]
    for score in ("exact", "first_order"):
        with pytest.raises(StageError, match="NaN or infinite") as caught:
            getattr(prober(poisoned, reference, tie=False), score)(Example((1, 2, 3), 1))
        assert caught.value.code == ExitCode.BAD_DATA
        assert caught.value.where == "reference row at index 1"


def _with_infinite_row(state: AdamState, token: int) -> AdamState:
    untied = warmed_up(llama(tie=False))
    untied.weights["model.embed_tokens.weight"][token] = math.inf
    return untied


def test_less_precise_products_are_not_taken_for_another_models_losses(
    state, reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU TF32 alone moves a loss by more than a wrong attention might: the check of the model is fp32's."""

    @contextmanager
    def products_in(products: str, device: torch.device) -> Iterator[None]:
        with Coarse() if products == "tf32" else nullcontext():
            yield

    class Coarse(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            return found * 2 if func is torch.nn.functional.linear else found

    monkeypatch.setattr("stages.influence.loss.products_in", products_in)
    coarse, fine = (prober(state, reference, products=products).base_nll for products in ("tf32", "fp32"))
    assert np.abs(coarse / fine - 1).max() > 1e-3
