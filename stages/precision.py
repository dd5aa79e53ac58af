"""In what precision a model is held and multiplied where settings leave it open."""

from __future__ import annotations

import torch


def emulates_bf16(device: str) -> bool:
    """Whether bf16 products are made of fp32 ones: on a CPU without AVX-512.

    torch is then four times as slow as in fp32 where it generates, and some fifteen times where it trains (measured on
    an AVX2 processor).
    """
    return device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def weights_dtype(named: str, device: str) -> str:
    """`settings.dtype` as an engine takes it: `auto` is the model's own, but fp32 where bf16 is emulated."""
    return "float32" if named == "auto" and emulates_bf16(device) else named


def training_dtype(named: str, device: str) -> str:
    """`settings.dtype` as a training takes it: `auto` is bfloat16, but fp32 where that is emulated."""
    if named != "auto":
        return named
    return "float32" if emulates_bf16(device) else "bfloat16"
