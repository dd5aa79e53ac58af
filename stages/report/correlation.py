"""Rank correlations of two signals on the same candidates, with intervals that resample prompts.

Candidates of one prompt are not independent, so whole prompts are drawn. Ranks are those of all candidates: a resample
reweights them instead of ranking anew, which makes thousands of resamples a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from stages.evaluate.bootstrap import Counts, Floats, Interval
from stages.report.statistics import bootstrap


def ranks(values: Sequence[float]) -> Floats:
    """Ranks from 0 to 100, equal values sharing their mean rank [N]."""
    found = rankdata(values)
    return (found - 0.5) * (100.0 / max(1, len(found)))


def spearman(first: Sequence[float], second: Sequence[float], prompts: Sequence[str]) -> Interval | None:
    """Spearman's correlation with its interval; None where one side does not vary or there are fewer than 3 prompts."""
    x_N, y_N = ranks(first), ranks(second)
    names, prompt_N = np.unique(np.array(prompts), return_inverse=True)
    if len(names) < 3 or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return None
    counts_P: Counts = np.bincount(prompt_N).astype(np.int64)
    sums_P: list[Floats] = [
        np.bincount(prompt_N, weights=each, minlength=len(names)).astype(np.float64)
        for each in (x_N, y_N, x_N**2, y_N**2, x_N * y_N)
    ]
    draws = bootstrap(len(names), seed=0)
    value = float(_pearson([np.array([each.sum() / len(x_N)]) for each in sums_P])[0])
    resampled_S = _pearson([draws.means(each, counts_P) for each in sums_P])
    known_S = resampled_S[np.isfinite(resampled_S)]  # a resample of one prompt over and over may not vary
    if known_S.size < 100:
        return None
    return draws.interval(value, known_S)


def _pearson(means: Sequence[Floats]) -> Floats:
    """Correlation out of the means of x, y, x², y² and xy."""
    x, y, xx, yy, xy = means
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (xy - x * y) / np.sqrt((xx - x**2) * (yy - y**2))
    return found
