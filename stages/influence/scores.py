"""A score and its standard error from what each part of the reference set contributes to it.

The mean reference loss is L = Σ_r w_r·nll_r, with nll_r the row's sum over its tokens and w_r = 1/T for the
mean over tokens, 1/(R·t_r) for the mean over rows. A part (a row, or a group of rows) contributes c_p = Σ_{r
in p} w_r·Δnll_r and has the share a_p = Σ_{r in p} w_r·t_r, with Σ a = 1. So the score Σ c is a ratio of two
sums over parts, and

    stderr² = P/(P−1) · Σ_p (c_p − score·a_p)²

is its linearised sampling variance over reference parts, paired: before and after are of the same row
(Cochran, Sampling Techniques, 6.3). It says how the score would move with other reference rows, not with
other responses.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Reduction = Literal["token", "row"]


def row_weights(tokens: npt.NDArray[np.int64], reduction: Reduction) -> Floats:
    """w_r of the reference loss, [R]; `tokens` are the scored tokens of each row."""
    if reduction == "token":
        return np.full(len(tokens), 1.0 / tokens.sum())
    return 1.0 / (len(tokens) * tokens.astype(np.float64))


def standard_error(contributions: Floats, shares: Floats) -> float:
    """Standard error of contributions.sum() over its parts; NaN for fewer than two parts."""
    parts = len(contributions)
    if parts < 2:
        return math.nan
    residuals = contributions - contributions.sum() * shares
    return float(np.sqrt(parts / (parts - 1) * np.sum(residuals**2)))


def paired_score(
    before: Floats, after: Floats, tokens: npt.NDArray[np.int64], reduction: Reduction
) -> tuple[float, float]:
    """(L before − L after, its standard error) from Σ nll of each reference row."""
    weights = row_weights(tokens, reduction)
    contributions = weights * (before - after)
    return float(contributions.sum()), standard_error(contributions, weights * tokens)


def is_tie(score: float, noise: float) -> bool:
    """True if rounding alone could have given the score its sign: |score| < 2σ, σ the numerical noise floor."""
    return abs(score) < 2 * noise
