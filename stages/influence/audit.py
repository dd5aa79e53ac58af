"""The two-stage audit: does first order rank candidates as exact scores do?

Judged on a sample drawn uniformly: on the deciding candidates alone (extremes of their groups) agreement
looks better than it is. Publish it with the scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Decision = Literal["two_stage", "exact"]


@dataclass(frozen=True)
class Audit:
    """Agreement on the audit sample.

    Attributes:
        candidates: how many were scored both ways.
        spearman, pearson: correlations, NaN below three candidates or without variation.
        recall_top, recall_bottom: share of the exact top (bottom) tenth that first order puts there too.
        slope: exact = slope · first_order, least squares through the origin.
        residual: standard deviation of exact − first_order: the linearisation's error, as a score.
        threshold: the Spearman correlation asked for.
        decision: `exact` if it was not reached, or could not be measured: score all candidates exactly.
    """

    candidates: int
    spearman: float
    pearson: float
    recall_top: float
    recall_bottom: float
    slope: float
    residual: float
    threshold: float
    decision: Decision

    def figures(self) -> dict[str, Any]:
        """For a manifest: plain values, None for what could not be measured."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def audit(first_order: Sequence[float], exact: Sequence[float], *, threshold: float = 0.9) -> Audit:
    """Compares the two scores of the same candidates, in the same order; pairs that are not finite are left out."""
    pairs = np.column_stack([np.asarray(first_order, dtype=np.float64), np.asarray(exact, dtype=np.float64)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    approximate, true = pairs[:, 0], pairs[:, 1]
    spearman, pearson = _correlations(approximate, true)
    # A comparison with NaN is false: what could not be measured is not trusted.
    decision: Decision = "two_stage" if spearman >= threshold else "exact"
    square = float(approximate @ approximate)
    return Audit(
        candidates=len(pairs),
        spearman=spearman,
        pearson=pearson,
        recall_top=_recall(approximate, true),
        recall_bottom=_recall(-approximate, -true),
        slope=float(approximate @ true) / square if square else math.nan,
        residual=float(np.std(true - approximate, ddof=1)) if len(pairs) > 1 else math.nan,
        threshold=threshold,
        decision=decision,
    )


def _correlations(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan
    return float(stats.spearmanr(x, y).statistic), float(stats.pearsonr(x, y).statistic)


def _recall(approximate: np.ndarray, true: np.ndarray) -> float:
    if len(true) == 0:
        return math.nan
    size = max(1, len(true) // 10)
    top = set(np.argsort(-true, kind="stable")[:size])
    found = set(np.argsort(-approximate, kind="stable")[:size])
    return len(top & found) / size
