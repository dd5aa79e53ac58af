"""What all students' losses together say: each one's loss, and each pair's difference, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from stages.evaluate.bootstrap import Counts, Floats, PairedBootstrap, token_mean

Replicas = Mapping[int | None, tuple[Floats, Counts]]


def compare(losses: Mapping[str, Replicas], bootstrap: PairedBootstrap) -> dict[str, Any]:
    """Figures of the stage, out of (nll [R], tokens [R]) by student and training seed.

    `students` has each one's mean loss per token with its interval, and the loss of each of its replicas; a student
    of several replicas is their mean. `differences` has, for every two
    students, the first's loss minus the second's (below zero: the first is better). Students whose tokenizers cut
    the same text differently have no common unit, so such a pair has no difference.
    """
    nll_NR = {name: np.stack([nll for nll, _ in each.values()]) for name, each in losses.items()}
    tokens_R = {name: next(iter(each.values()))[1] for name, each in losses.items()}
    resampled = {name: bootstrap.replica_means(name, nll_NR[name], tokens_R[name]) for name in losses}
    values = {name: token_mean(nll_NR[name].mean(axis=0), tokens_R[name]) for name in losses}
    students = {
        name: {
            **asdict(bootstrap.interval(values[name], resampled[name])),
            "nll": float(nll_NR[name].mean(axis=0).sum()),
            "tokens": int(tokens_R[name].sum()),
            "rows": len(tokens_R[name]),
            "seeds": [{"seed": seed, "value": token_mean(*each)} for seed, each in replicas.items()],
        }
        for name, replicas in losses.items()
    }
    differences = [
        {
            "first": first,
            "second": second,
            **asdict(bootstrap.interval(values[first] - values[second], resampled[first] - resampled[second])),
        }
        for first, second in combinations(losses, 2)
        if np.array_equal(tokens_R[first], tokens_R[second])
    ]
    return {"students": students, "differences": differences}
