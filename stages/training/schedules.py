"""The learning rate of each step, as a multiple of `learning_rate`."""

from __future__ import annotations

import math

from stages.training.settings import Schedule


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """The factor of step `step` (from 0) out of `steps`.

    A rise over n steps ends at 1 in its n-th and begins at 1/n: no step is taken at rate 0. `wsd` is MiniCPM's
    schedule (arXiv 2404.06395) with the cosine decay that `transformers` gives it.
    """
    if schedule.kind == "rising":
        return (step + 1) / steps
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.kind == "constant":
        return 1.0
    start = warmup
    if schedule.kind == "wsd":
        start = steps - round(schedule.decay * steps)
        if step < start:
            return 1.0
    done = (step - start) / max(1, steps - start)
    falling = 1 - done if schedule.kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return schedule.min_ratio + (1 - schedule.min_ratio) * falling
