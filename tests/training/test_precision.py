"""What `dtype: auto` means on a device."""

from __future__ import annotations

import pytest

from stages import precision


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
