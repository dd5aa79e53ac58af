"""What all students' losses together say: each one's loss, and each pair's difference, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from stages.evaluate.bootstrap import Counts, Floats, PairedBootstrap, token_mean


def compare(losses: Mapping[str, tuple[Floats, Counts]], bootstrap: PairedBootstrap) -> dict[str, Any]:
    """Figures of the stage, out of (nll [R], tokens [R]) by student.

    `students` has each one's mean loss per token with its interval; `differences` has, for every two
    students, the first's loss minus the second's (below zero: the first is better). Students whose tokenizers cut
    the same text differently have no common unit, so such a pair has no difference.
    """
    resampled = {name: bootstrap.means(*each) for name, each in losses.items()}
    values = {name: token_mean(*each) for name, each in losses.items()}
    students = {
        name: {
            **asdict(bootstrap.interval(values[name], resampled[name])),
            "nll": float(nll.sum()),
            "tokens": int(tokens.sum()),
            "rows": len(nll),
        }
        for name, (nll, tokens) in losses.items()
    }
    differences = [
        {
            "first": first,
            "second": second,
            **asdict(bootstrap.interval(values[first] - values[second], resampled[first] - resampled[second])),
        }
        for first, second in combinations(losses, 2)
        if np.array_equal(losses[first][1], losses[second][1])
    ]
    return {"students": students, "differences": differences}
