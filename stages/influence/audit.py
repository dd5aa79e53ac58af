"""The two-stage audit: does first order rank candidates as exact scores do?

Judged on a sample drawn uniformly: on the deciding candidates alone (extremes of their groups) agreement
looks better than it is. Publish it with the scores.

Exact scores can judge only where they are not noise themselves. A score whose σ is a share s of the scores' standard
deviation correlates at √(1 − s²) with the truth, so that a first order without any error would still be found at that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Decision = Literal["two_stage", "exact", "noise"]

# σ of exact scores as a share of their standard deviation: at a third a faultless first order is found at 0.94.
_MOST_NOISE = 1 / 3
_LEAST = 3  # candidates; of two, ranks and spreads say nothing


@dataclass(frozen=True)
class Audit:
    """Agreement on the audit sample.

    Attributes:
        candidates: how many were scored both ways.
        spearman, pearson: correlations, NaN below three candidates or without variation.
        recall_top, recall_bottom: share of the exact top (bottom) tenth that first order puts there too.
        intercept, slope: of the line exact = intercept + slope · first_order (Theil and Sen's, the median of the slopes
            between any two: a few extreme candidates do not turn it). NaN where correlations are.
        residual: standard deviation of exact about that line: what first order misses, as a score.
        spread: standard deviation of the exact scores.
        threshold: the Spearman correlation asked for.
        decision: `exact` if it was not reached, or could not be measured: score all candidates exactly. `noise` if the
            exact scores' own σ is above a third of their spread: then neither they nor what is compared with them can
            be told, and `residual` is NaN.
    """

    candidates: int
    spearman: float
    pearson: float
    recall_top: float
    recall_bottom: float
    intercept: float
    slope: float
    residual: float
    spread: float
    threshold: float
    decision: Decision

    def figures(self) -> dict[str, Any]:
        """For a manifest: plain values, None for what could not be measured."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def audit(first_order: Sequence[float], exact: Sequence[float], *, threshold: float = 0.9, sigma: float = 0.0) -> Audit:
    """Compares the two scores of the same candidates, in the same order; pairs that are not finite are left out.

    `sigma` is the numerical noise of an exact score.
    """
    pairs = np.column_stack([np.asarray(first_order, dtype=np.float64), np.asarray(exact, dtype=np.float64)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    approximate, true = pairs[:, 0], pairs[:, 1]
    spearman, pearson = _correlations(approximate, true)
    spread = float(np.std(true, ddof=1)) if len(pairs) > 1 else math.nan
    decision = _decision(len(pairs), spearman, threshold, sigma, spread)
    intercept, slope = _line(approximate, true)
    misses = true - intercept - slope * approximate
    told = math.isfinite(slope) and decision != "noise"
    return Audit(
        candidates=len(pairs),
        spearman=spearman,
        pearson=pearson,
        recall_top=_recall(approximate, true),
        recall_bottom=_recall(-approximate, -true),
        intercept=intercept,
        slope=slope,
        residual=math.sqrt(np.sum(misses**2) / (len(pairs) - 2)) if told else math.nan,
        spread=spread,
        threshold=threshold,
        decision=decision,
    )


def _decision(candidates: int, spearman: float, threshold: float, sigma: float, spread: float) -> Decision:
    if candidates >= _LEAST and sigma > _MOST_NOISE * spread:
        return "noise"
    # A comparison with NaN is false: what could not be measured is not trusted.
    return "two_stage" if spearman >= threshold else "exact"


def _correlations(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    if _says_nothing(x, y):
        return math.nan, math.nan
    return float(stats.spearmanr(x, y).statistic), float(stats.pearsonr(x, y).statistic)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    from scipy import stats

    if _says_nothing(x, y):
        return math.nan, math.nan
    found = stats.theilslopes(y, x)
    return float(found.intercept), float(found.slope)


def _says_nothing(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(len(x) < _LEAST or np.ptp(x) == 0 or np.ptp(y) == 0)


def _recall(approximate: np.ndarray, true: np.ndarray) -> float:
    if len(true) == 0:
        return math.nan
    size = max(1, len(true) // 10)
    top = set(np.argsort(-true, kind="stable")[:size])
    found = set(np.argsort(-approximate, kind="stable")[:size])
    return len(top & found) / size
