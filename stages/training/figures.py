"""The trainer's log as figures of a manifest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

Log = Iterable[Mapping[str, Any]]
_REWARDS = {
    "accuracy": "rewards/accuracies",
    "margin": "rewards/margins",
    "chosen": "rewards/chosen",
    "rejected": "rewards/rejected",
}


def loss_curve(log: Log) -> list[dict[str, float | None]]:
    """Loss, learning rate and gradient norm of every step."""
    return [
        {
            "step": entry["step"],
            "loss": _number(entry["loss"]),
            "lr": _number(entry.get("learning_rate")),
            "grad_norm": _number(entry.get("grad_norm")),
        }
        for entry in log
        if "loss" in entry
    ]


def reward_curve(log: Log) -> list[dict[str, float | None]]:
    """DPO's implicit rewards of every step's pairs; a margin is chosen minus rejected, in nats times beta."""
    return [{"step": entry["step"], **_rewards(entry, "")} for entry in log if "loss" in entry]


def heldout_figures(log: Log, pairs: int) -> dict[str, Any]:
    """Loss and rewards on the held-out pairs before and after; before, rewards are 0 but for rounding."""
    measured = [entry for entry in log if "eval_loss" in entry]
    if not measured:
        return {"pairs": pairs}
    before, after = (
        {"loss": _number(entry["eval_loss"]), **_rewards(entry, "eval_")} for entry in (measured[0], measured[-1])
    )
    return {"pairs": pairs, "before": before, "after": after}


def _rewards(entry: Mapping[str, Any], prefix: str) -> dict[str, float | None]:
    return {name: _number(entry.get(prefix + key)) for name, key in _REWARDS.items()}


def _number(value: Any) -> float | None:
    """JSON has no NaN and no infinity."""
    return None if value is None or not math.isfinite(float(value)) else float(value)
