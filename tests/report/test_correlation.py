"""Rank correlations with intervals by prompt: right where the truth is known, None where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from stages.report.correlation import ranks, spearman


def scores(
    correlation: float, seed: int, prompts: int = 30, each: int = 4
) -> tuple[list[float], list[float], list[str]]:
    """Two normal scores of so many candidates with a known correlation."""
    dice = np.random.default_rng(seed)
    x, noise = dice.normal(size=(2, prompts * each))
    y = correlation * x + np.sqrt(1 - correlation**2) * noise
    return list(x), list(y), [f"p-{number // each}" for number in range(prompts * each)]


def test_the_value_is_scipy_s() -> None:
    x, y, prompts = scores(0.5, seed=0)
    found = spearman(x, y, prompts)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(x, y).statistic)


def test_ties_share_their_mean_rank() -> None:
    x = [1.0, 2.0, 2.0, 3.0, 5.0, 5.0] * 3
    y = [2.0, 1.0, 3.0, 3.0, 4.0, 6.0] * 3
    found = spearman(x, y, [str(number) for number in range(18)])
    assert found is not None
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert list(ranks([1.0, 2.0, 2.0, 3.0])) == [12.5, 50, 50, 87.5]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 6 / np.pi * np.arcsin(0.5 / 2)  # Spearman of a binormal with Pearson 0.5
    found = [spearman(*scores(0.5, seed)) for seed in range(60)]
    covered = sum(each is not None and each.low <= truth <= each.high for each in found)
    assert covered >= 50


def test_what_has_no_correlation_says_so_instead_of_failing() -> None:
    x, y, prompts = scores(0.5, seed=1)
    assert spearman([1.0] * len(x), y, prompts) is None  # a judge that gives everything the same
    assert spearman(x, y, ["one prompt"] * len(x)) is None
    assert spearman([], [], []) is None
