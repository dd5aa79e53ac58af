"""The paired bootstrap: its intervals against what they must contain."""

from __future__ import annotations

import numpy as np
import pytest

from stages.evaluate.bootstrap import Interval, PairedBootstrap, bounded, token_mean
from stages.evaluate.compare import compare

ROWS = 200
TOKENS_R = np.random.default_rng(0).integers(20, 400, ROWS)
LOSS_R = np.random.default_rng(1).normal(2.0, 0.5, ROWS)  # rows differ far more than students do
BASE = (LOSS_R * TOKENS_R, TOKENS_R)
BETTER = ((LOSS_R - 0.01 + np.random.default_rng(2).normal(0, 0.01, ROWS)) * TOKENS_R, TOKENS_R)
SAME = ((LOSS_R + np.random.default_rng(3).normal(0, 0.01, ROWS)) * TOKENS_R, TOKENS_R)
BOOTSTRAP = PairedBootstrap(ROWS, resamples=2000, confidence=0.95, seed=0)


def test_a_small_difference_shows_only_because_rows_are_paired() -> None:
    figures = compare({"better": {None: BETTER}, "base": {None: BASE}}, BOOTSTRAP)
    (difference,) = figures["differences"]
    assert (difference["first"], difference["second"]) == ("better", "base")
    assert -0.015 < difference["low"] < difference["value"] < difference["high"] < -0.005
    students = figures["students"]
    assert students["better"]["high"] > students["base"]["low"]  # unpaired, the two intervals overlap


def test_no_difference_has_an_interval_around_zero() -> None:
    (difference,) = compare({"same": {None: SAME}, "base": {None: BASE}}, BOOTSTRAP)["differences"]
    assert difference["low"] < 0 < difference["high"]


def test_the_interval_is_that_of_the_normal_approximation_of_a_ratio() -> None:
    nll_R, tokens_R = BASE
    value = token_mean(nll_R, tokens_R)
    residual_R = (nll_R - value * tokens_R) / tokens_R.mean()
    expected = 1.96 * residual_R.std() / np.sqrt(ROWS)
    interval = BOOTSTRAP.interval(value, BOOTSTRAP.means(nll_R, tokens_R))
    assert abs((interval.high - interval.low) / 2 - expected) < 0.08 * expected


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    again = PairedBootstrap(ROWS, resamples=2000, confidence=0.95, seed=0)
    other = PairedBootstrap(ROWS, resamples=2000, confidence=0.95, seed=1)
    assert np.array_equal(BOOTSTRAP.means(*BASE), again.means(*BASE))
    assert not np.array_equal(BOOTSTRAP.means(*BASE), other.means(*BASE))


def test_students_of_different_tokenizers_are_not_compared() -> None:
    figures = compare({"base": {None: BASE}, "foreign": {None: (BASE[0], TOKENS_R + 1)}}, BOOTSTRAP)
    assert figures["differences"] == [] and set(figures["students"]) == {"base", "foreign"}


SPREAD = 0.02  # of a student's loss from one training seed to the next


def replicas(gain: float, seeds: int, random: np.random.Generator) -> dict[int | None, tuple[np.ndarray, np.ndarray]]:
    """A student trained `seeds` times: each replica is as far off as its seed made it, on all rows alike."""
    return {
        seed: ((LOSS_R - gain + random.normal(0, SPREAD) + random.normal(0, 0.01, ROWS)) * TOKENS_R, TOKENS_R)
        for seed in range(seeds)
    }


def test_the_spread_between_training_seeds_widens_the_interval() -> None:
    random = np.random.default_rng(5)
    one, four = ({"tailored": replicas(0.0, n, random), "base": {None: BASE}} for n in (1, 4))
    narrow, wide = (compare(each, BOOTSTRAP)["differences"][0] for each in (one, four))
    assert narrow["high"] - narrow["low"] < 0.01  # over rows alone
    assert wide["high"] - wide["low"] > 0.01
    assert [each["seed"] for each in compare(four, BOOTSTRAP)["students"]["tailored"]["seeds"]] == [0, 1, 2, 3]


def test_intervals_over_rows_and_seeds_contain_the_truth_about_as_often_as_they_say() -> None:
    gain, hits, tries = 0.01, 0, 60
    bootstrap = PairedBootstrap(ROWS, resamples=200, confidence=0.95, seed=0)
    for n in range(tries):
        random = np.random.default_rng([9, n])
        students = {"tailored": replicas(gain, 4, random), "other": replicas(0.0, 4, random)}
        (found,) = compare(students, bootstrap)["differences"]
        hits += found["low"] <= -gain <= found["high"]
    assert 0.88 <= hits / tries <= 0.995


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_are_covered_as_stated_where_they_are_all_that_differs(seeds: int) -> None:
    """Against one student that is fixed the interval is Student's own; between two trained ones it may be wider."""
    bootstrap, tries = PairedBootstrap(1, resamples=1000, confidence=0.95, seed=0), 800
    drawn = np.random.default_rng(4).normal(0.0, SPREAD, (tries, 2, seeds))
    weights = [bootstrap.seed_weights(name, seeds) for name in ("one", "other")]
    fixed = both = 0
    for one_N, other_N in drawn:
        resampled = [weight_SN @ each_N for weight_SN, each_N in zip(weights, (one_N, other_N), strict=True)]
        fixed += bootstrap.interval(float(one_N.mean()), resampled[0]).includes_zero
        both += bootstrap.interval(float(one_N.mean() - other_N.mean()), resampled[0] - resampled[1]).includes_zero
    assert 0.93 <= fixed / tries <= 0.97
    assert 0.94 <= both / tries <= 0.999


def test_a_resample_of_seeds_is_a_mean_and_one_seed_has_no_spread() -> None:
    assert np.allclose(BOOTSTRAP.seed_weights("any", 3).sum(axis=1), 1)
    assert np.array_equal(BOOTSTRAP.seed_weights("any", 1), np.ones((2000, 1)))


def test_few_rows_that_differ_among_thousands_are_no_more_certain_than_the_bootstrap_says() -> None:
    """Two students differ on 42 of 14,042 documents: 23 are gained and 19 are lost, which a coin does as well."""
    differing_R = np.zeros(14_042)
    differing_R[:42] = [1.0] * 23 + [-1.0] * 19
    draw = PairedBootstrap(len(differing_R), resamples=500, confidence=0.95, seed=0)
    resampled_S = draw.means(differing_R, np.ones(len(differing_R), dtype=np.int64))
    plain = draw.interval(float(differing_R.mean()), resampled_S)
    found = bounded(plain, len(differing_R), draw.tail, (-1.0, 1.0))
    assert found.includes_zero
    assert found.low <= plain.low and found.high >= plain.high


def test_rows_that_are_all_alike_are_bounded_by_what_was_not_met() -> None:
    found = bounded(Interval(1.0, 1.0, 1.0), 100, 2.5, (0.0, 1.0))
    assert (found.low, found.high) == (pytest.approx(0.025 ** (1 / 100)), 1.0)
