"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path


def describe() -> str:
    """The machine's name for a line of JSON."""
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def peak_gib() -> float:
    """Most memory that this process has held, GiB."""
    # ru_maxrss is in KiB on Linux and in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def matmul_flops(size: int = 2048, seconds: float = 2.0) -> float:
    """fp32 FLOP/s of torch's square matrix product on the CPU: the best of repeated products within `seconds`."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    out = a @ b
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
