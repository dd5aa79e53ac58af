"""Which GPUs there are to share out, without importing torch: the processes that ask do no computing."""

from __future__ import annotations

import os
from pathlib import Path


def gpu_names(devices: Path = Path("/dev")) -> list[str]:
    """GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; by number where it names none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia*")]
    there = sorted((number for number in numbers if number.isdigit()), key=int)
    if named is None or not there:
        return there
    return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]


def visible_gpus(devices: Path = Path("/dev")) -> int:
    """How many GPUs this process may use."""
    return len(gpu_names(devices))
