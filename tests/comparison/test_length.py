"""The length-controlled win rate: it finds what was put in, and keeps the published properties."""

from __future__ import annotations

import numpy as np
import pytest

from stages.comparison.length import at_equal_length, features, fit, logistic

COMPARISONS = 1500
QUALITY, LENGTH_BIAS = 0.4, 1.6  # log-odds for the student at equal length, and for a much longer answer
ONE = np.ones((1, COMPARISONS))


def simulated(*, bias: float = LENGTH_BIAS, longer: float = 200.0) -> tuple[np.ndarray, np.ndarray]:
    """(length differences, verdicts): a student whose answers are `longer` characters longer on average."""
    random = np.random.default_rng(0)
    delta_O = random.normal(longer, 250.0, COMPARISONS)
    chance_O = logistic(features(delta_O) @ np.array([QUALITY, bias]))
    return delta_O, (random.random(COMPARISONS) < chance_O).astype(float)


def fitted(delta_O: np.ndarray, y_O: np.ndarray) -> tuple[float, float]:
    """(rate at equal length, length coefficient)"""
    theta, bias = fit(features(delta_O), y_O, ONE, length_prior=0.1)[0]
    return float(logistic(theta)), float(bias)


def test_a_judge_that_likes_length_is_seen_through() -> None:
    delta_O, y_O = simulated()
    true = float(logistic(np.array(QUALITY)))
    rate, bias = fitted(delta_O, y_O)
    assert y_O.mean() > true + 0.1  # the plain win rate takes length for quality
    assert rate == pytest.approx(true, abs=0.04)
    assert bias == pytest.approx(LENGTH_BIAS, abs=0.35)


def test_without_a_liking_for_length_both_rates_agree() -> None:
    delta_O, y_O = simulated(bias=0.0)
    assert fitted(delta_O, y_O)[0] == pytest.approx(y_O.mean(), abs=0.03)


def test_exchanging_the_two_sides_gives_the_rest() -> None:
    delta_O, y_O = simulated()
    assert fitted(delta_O, y_O)[0] + fitted(-delta_O, 1 - y_O)[0] == pytest.approx(1, abs=1e-6)


def test_a_student_that_fails_at_what_is_hard_is_fitted_and_averaged_over_the_instructions() -> None:
    random = np.random.default_rng(1)
    difficulty_O = random.normal(0.8, 1.5, COMPARISONS)
    x_OK = features(random.normal(200.0, 250.0, COMPARISONS), difficulty_O)
    y_O = (random.random(COMPARISONS) < logistic(x_OK @ np.array([QUALITY, LENGTH_BIAS, -1.2]))).astype(float)
    beta_SK = fit(x_OK, y_O, ONE, length_prior=0.1)
    assert beta_SK[0] == pytest.approx([QUALITY, LENGTH_BIAS, -1.2], abs=0.35)
    expected = logistic(QUALITY - 1.2 * difficulty_O).mean()
    assert at_equal_length(x_OK, beta_SK, ONE)[0] == pytest.approx(expected, abs=0.03)
    assert expected != pytest.approx(logistic(QUALITY - 1.2 * difficulty_O.mean()), abs=0.01)  # no mean instruction's


def test_a_student_against_itself_has_half() -> None:
    assert fitted(np.zeros(COMPARISONS), np.full(COMPARISONS, 0.5))[0] == pytest.approx(0.5, abs=1e-9)


def test_a_student_that_wins_everything_has_a_finite_rate() -> None:
    rate, bias = fitted(simulated()[0], np.ones(COMPARISONS))
    assert 0.98 < rate < 1 and np.isfinite(bias)


def test_weights_count_as_repeated_comparisons() -> None:
    delta_O, y_O = simulated()
    half = COMPARISONS // 2
    twice = np.concatenate([np.full(half, 2.0), np.zeros(half)])[None]
    x_OK = features(delta_O)
    weighted = fit(x_OK, y_O, twice, length_prior=0.1)
    repeated = fit(np.repeat(x_OK[:half], 2, axis=0), np.repeat(y_O[:half], 2), ONE, length_prior=0.1)
    assert np.allclose(weighted, repeated, atol=1e-8)
