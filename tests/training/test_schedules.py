"""The learning rate of each step."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stages.sft.settings import SftSettings
from stages.training.schedules import rate
from stages.training.settings import Schedule
from stages.warmup.settings import WarmupSettings

TABLE = [
    ("constant", Schedule(kind="constant"), [1, 1, 1, 1]),
    ("constant after a rise", Schedule(kind="constant", warmup=0.5), [0.5, 1, 1, 1]),
    ("rising", Schedule(kind="rising"), [0.25, 0.5, 0.75, 1]),
    ("linear", Schedule(kind="linear"), [1, 0.75, 0.5, 0.25]),
    ("linear to a floor", Schedule(kind="linear", min_ratio=0.5), [1, 0.875, 0.75, 0.625]),
    ("cosine", Schedule(kind="cosine"), [1, 0.8535534, 0.5, 0.1464466]),
    ("wsd", Schedule(kind="wsd", warmup=0.25, decay=0.5), [1, 1, 1, 0.5]),
]


@pytest.mark.parametrize(("schedule", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_rate_by_step(schedule: Schedule, expected: list[float]) -> None:
    assert [rate(schedule, step, 4) for step in range(4)] == pytest.approx(expected)


def test_wsd_is_that_of_transformers_one_step_later_in_its_rise() -> None:
    import torch
    from transformers import get_wsd_schedule

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_wsd_schedule(optimizer, 10, 40, num_stable_steps=50, min_lr_ratio=1e-4)
    ours = Schedule(kind="wsd", warmup=0.1, decay=0.4, min_ratio=1e-4)
    for step in range(100):
        shown = theirs.lr_lambdas[0](step + 1 if step < 10 else step)
        assert rate(ours, step, 100) == pytest.approx(shown, abs=1e-4), step  # theirs rises from min_ratio


def test_no_step_has_a_rate_of_zero() -> None:
    schedule = SftSettings().schedule
    for steps in range(1, 60):
        assert all(rate(schedule, step, steps) > 0 for step in range(steps))


@pytest.mark.parametrize("shares", [{"kind": "wsd", "warmup": 0.7}, {"kind": "rising", "warmup": 0.1}])
def test_shares_that_do_not_fit_are_refused(shares: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate(shares)


def test_a_second_moment_without_memory_is_refused_because_no_probe_can_step_from_it() -> None:
    assert WarmupSettings(betas=(0.0, 0.5)).betas == (0.0, 0.5)
    with pytest.raises(ValidationError, match="greater than 0"):
        WarmupSettings(betas=(0.9, 0.0))
