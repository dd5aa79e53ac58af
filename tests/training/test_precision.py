"""What `dtype: auto` means on a device, and how weights are saved."""

from __future__ import annotations

import pytest
import torch

from stages import precision
from stages.training.export import in_dtype


@pytest.mark.parametrize(
    ("device", "emulated", "training", "weights"),
    [("cpu", True, "float32", "float32"), ("cpu", False, "bfloat16", "auto"), ("cuda", False, "bfloat16", "auto")],
)
def test_auto_is_float32_only_where_bfloat16_is_emulated(
    monkeypatch: pytest.MonkeyPatch, device: str, emulated: bool, training: str, weights: str
) -> None:
    monkeypatch.setattr(precision, "emulates_bf16", lambda found: emulated and found == "cpu")
    assert precision.training_dtype("auto", device) == training
    assert precision.weights_dtype("auto", device) == weights
    for named in ("float32", "bfloat16"):
        assert precision.training_dtype(named, device) == precision.weights_dtype(named, device) == named


def test_a_gpu_is_never_taken_for_a_processor() -> None:
    assert not precision.emulates_bf16("cuda")


def test_small_steps_are_not_lost_where_weights_are_saved_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    released = torch.randn(200, 500, generator=generator).bfloat16().float()
    trained = released * (1 + 1e-4 * torch.rand(200, 500, generator=generator))  # a fortieth of the spacing, or less
    saved = in_dtype(trained, torch.bfloat16, "some")
    assert torch.equal(in_dtype(trained, torch.bfloat16, "some"), saved)
    assert torch.equal(in_dtype(released, torch.bfloat16, "some").float(), released)
    relative = (saved.double() - released) / released
    assert float(relative.mean()) == pytest.approx(0.5e-4, rel=0.1)  # to the nearest: 0
    assert float(relative.abs().max()) <= 2.0**-7, "one of the two neighbours"
    assert torch.equal(in_dtype(trained, torch.float32, "some"), trained)
