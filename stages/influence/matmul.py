"""How fp32 matrices are multiplied: as fast as full precision allows, or in less, where that is asked for.

On a GPU `tf32` is many times as fast as `fp32`; what it does to a score is what σ says (noise.py).

On a CPU torch multiplies fp32 matrices with MKL, unless it is told that less precision will do; then it asks oneDNN,
whose kernels on processors without AMX are fp32 all the same, and on AMD's twice as fast as MKL's (a Zen 5 with two
cores: 439 against 209 GFLOP/s, with the same error). On processors with AMX they would be bf16. Which of the two this
machine has is measured, once, not looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch

Products = Literal["fp32", "tf32", "bf16"]

_SIZE = 512
_WORSE = 8  # times MKL's error: another order of summation is within it, 8 bits of mantissa are not


@contextmanager
def products_in(products: Products, device: torch.device) -> Iterator[None]:
    """Inside the block fp32 matrices are multiplied so; elsewhere as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_setting(products, device.type))
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def spacing(products: Products, device: torch.device) -> float:
    """That of the numbers which this device multiplies, relative to their size: 2⁻²³ for fp32, 2⁻¹⁰ for TF32.

    Measured, because a setting means what the device makes of it: a CPU without AMX multiplies in fp32 under any.
    """
    generator = torch.Generator(device).manual_seed(0)
    given = torch.rand(_SIZE, _SIZE, generator=generator, device=device) + 1
    with products_in(products, device):
        found = given @ torch.eye(_SIZE, device=device)
    # Rounding to the nearest of such numbers errs by half their distance.
    return max(2 * float((found / given - 1).abs().max()), torch.finfo(torch.float32).eps)


def _setting(products: Products, device: str) -> str:
    """torch's name for it."""
    if products == "fp32":
        return _fastest_fp32() if device == "cpu" else "highest"
    return {"tf32": "high", "bf16": "medium"}[products]


@cache
def _fastest_fp32() -> str:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_SIZE, _SIZE, generator=generator) for _ in range(2))
    truth = a.double() @ b.double()
    errors = {}
    before = torch.get_float32_matmul_precision()
    for setting in ("highest", "medium"):
        torch.set_float32_matmul_precision(setting)
        errors[setting] = float((a @ b - truth).abs().max())
    torch.set_float32_matmul_precision(before)
    return "medium" if errors["medium"] < _WORSE * errors["highest"] else "highest"
