"""The two-parameter logistic model of item responses, fitted by penalised marginal likelihood.

    P(person p answers item i rightly) = sigmoid(a_i (θ_p − b_i))        θ_p ~ N(0, 1)

a is an item's discrimination (positive), b its difficulty; abilities θ are integrated out on a grid (Bock and Aitkin,
Psychometrika 46, 1981). log a ~ N(0, 0.5²) and b ~ N(0, 2²) keep the estimates finite where there are few persons. An
item that everybody answers alike says nothing about a and b: it has no estimates.

Shapes: P persons, I items, V items that vary, Q points of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp

Floats = NDArray[np.float64]

_GRID = np.linspace(-4.0, 4.0, 41)
_SPREAD_LOG_A = 0.5  # the prior that BILOG made usual
_SPREAD_B = 2.0


@dataclass(frozen=True)
class Fit:
    """Estimates by item [I], NaN for an item that does not vary; `abilities` are posterior means by person [P]."""

    discrimination: Floats
    difficulty: Floats
    abilities: Floats
    converged: bool


def fit(right_PI: NDArray[np.bool_]) -> Fit:
    """Fits the model to right (True) and wrong answers of at least one person.

    Raises:
        ValueError: for an empty matrix.
    """
    persons, items = right_PI.shape
    if not persons or not items:
        raise ValueError(f"there is nothing to fit: {persons} persons and {items} items")
    share_I = right_PI.mean(axis=0)
    varies_I = (share_I > 0) & (share_I < 1)
    discrimination_I, difficulty_I = np.full(items, np.nan), np.full(items, np.nan)
    if not varies_I.any():
        return Fit(discrimination_I, difficulty_I, np.zeros(persons), converged=True)
    right_PV = right_PI[:, varies_I].astype(np.float64)
    log_weight_Q = -0.5 * _GRID**2
    log_weight_Q -= logsumexp(log_weight_Q)

    def posterior(log_a_V: Floats, b_V: Floats) -> tuple[Floats, Floats]:
        """(log likelihood of each person [P], posterior over the grid [P, Q])."""
        logit_QV = np.exp(log_a_V) * (_GRID[:, None] - b_V)
        joint_PQ = right_PV @ log_expit(logit_QV).T + (1 - right_PV) @ log_expit(-logit_QV).T + log_weight_Q
        total_P = logsumexp(joint_PQ, axis=1)
        return total_P, np.exp(joint_PQ - total_P[:, None])

    def loss(values: Floats) -> tuple[float, Floats]:
        log_a_V, b_V = np.split(values, 2)
        a_V = np.exp(log_a_V)
        total_P, posterior_PQ = posterior(log_a_V, b_V)
        # d log P(right) / d logit is right − sigmoid(logit), averaged over the posterior of θ.
        reached_Q, rights_QV = posterior_PQ.sum(axis=0), posterior_PQ.T @ right_PV
        apart_QV = _GRID[:, None] - b_V
        error_QV = rights_QV - reached_Q[:, None] * expit(a_V * apart_QV)
        gradient = np.concatenate(
            [
                -(error_QV * apart_QV).sum(axis=0) * a_V + log_a_V / _SPREAD_LOG_A**2,
                error_QV.sum(axis=0) * a_V + b_V / _SPREAD_B**2,
            ]
        )
        penalty = 0.5 * (log_a_V**2).sum() / _SPREAD_LOG_A**2 + 0.5 * (b_V**2).sum() / _SPREAD_B**2
        return float(penalty - total_P.sum()), gradient

    share_V = np.clip(share_I[varies_I], 0.02, 0.98)
    start = np.concatenate([np.zeros(len(share_V)), -np.log(share_V / (1 - share_V))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    log_a_V, b_V = np.split(found.x, 2)
    discrimination_I[varies_I], difficulty_I[varies_I] = np.exp(log_a_V), b_V
    _, posterior_PQ = posterior(log_a_V, b_V)
    return Fit(discrimination_I, difficulty_I, posterior_PQ @ _GRID, converged=bool(found.success))
