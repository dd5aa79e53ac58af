"""The length-controlled win rate: AlpacaEval 2's regression (Dubois et al. 2024, arXiv 2404.04475).

    P(student preferred) = logistic(θ + φ · tanh(Δ / s) + ψ · γ)

Δ is the student's length minus the baseline's in characters and s its standard deviation over all comparisons; γ is the
instruction's difficulty, and θ, φ and ψ are the student's against the baseline. The length-controlled win rate is the
mean probability at Δ = 0, of logistic(θ + ψ · γ). It has the published properties: a student against itself has 50 %,
and exchanging the two gives 100 % minus it. Preferences may lie between 0 and 1 (ties, and two orders that disagree).

γ is estimated over hundreds of models, and AlpacaEval 2 publishes it for its 805 instructions. A run compares a
handful, whose own verdicts would be its only source: where questions come without a difficulty the term is left out.

Shapes: O comparisons, K features, S resamples (weights).
"""

from __future__ import annotations

import numpy as np

from stages.evaluate.bootstrap import Floats

_STEPS = 50
_LENGTH = 1  # place of the length among the features
_LONGEST_STEP = 3.0
_PRIOR = 0.01  # a student that wins everything has a finite θ, near 100 %


def features(delta_O: Floats, difficulty_O: Floats | None = None) -> Floats:
    """[O, 2 or 3]: one, tanh of the length difference in standard deviations, and the difficulty where it is known."""
    spread = float(delta_O.std())
    scaled = delta_O / spread if spread > 0 else np.sign(delta_O)
    known = [] if difficulty_O is None else [difficulty_O]
    return np.stack([np.ones_like(delta_O), np.tanh(scaled), *known], axis=1)


def fit(x_OK: Floats, y_O: Floats, weight_SO: Floats, *, length_prior: float) -> Floats:
    """Coefficients [S, K] of the logistic regression of y in [0, 1] for each row of weights, by Newton's method."""
    samples, kinds = len(weight_SO), x_OK.shape[1]
    prior_K = np.array([_PRIOR, max(length_prior, 1e-9), _PRIOR])[:kinds]
    outer_OKK = (x_OK[:, :, None] * x_OK[:, None, :]).reshape(len(x_OK), kinds * kinds)
    beta_SK = np.zeros((samples, kinds))
    for _ in range(_STEPS):
        p_SO = logistic(beta_SK @ x_OK.T)
        gradient_SK = (weight_SO * (y_O - p_SO)) @ x_OK - prior_K * beta_SK
        curvature_SKK = ((weight_SO * p_SO * (1 - p_SO)) @ outer_OKK).reshape(samples, kinds, kinds)
        step_SK = np.linalg.solve(curvature_SKK + np.diag(prior_K), gradient_SK[:, :, None])[:, :, 0]
        beta_SK = beta_SK + np.clip(step_SK, -_LONGEST_STEP, _LONGEST_STEP)
        if np.abs(step_SK).max() < 1e-9:
            break
    return beta_SK


def at_equal_length(x_OK: Floats, beta_SK: Floats, weight_SO: Floats) -> Floats:
    """The length-controlled win rate of each row of coefficients, [S]: the weighted mean probability at Δ = 0."""
    equal_OK = x_OK.copy()
    equal_OK[:, _LENGTH] = 0
    rates: Floats = (logistic(beta_SK @ equal_OK.T) * weight_SO).sum(axis=1) / weight_SO.sum(axis=1)
    return rates


def logistic(z: Floats) -> Floats:
    half: Floats = 0.5 * (1 + np.tanh(0.5 * z))
    return half
