"""In what precision an engine holds a model whose settings leave it open."""

from __future__ import annotations

import torch


def weights_dtype(named: str, device: str) -> str:
    """`settings.dtype` as an engine takes it: `auto` is the model's own, except for a CPU that cannot multiply bf16.

    Without AVX-512 torch emulates bf16 products, four times as slow as fp32 ones (measured on an AVX2 processor).
    """
    emulated = device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "float32" if named == "auto" and emulated else named
