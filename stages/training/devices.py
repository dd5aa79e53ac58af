"""How many ranks this machine can have, without importing torch: the process that asks does no computing."""

from __future__ import annotations

import os
from pathlib import Path


def visible_gpus(devices: Path = Path("/dev")) -> int:
    """GPUs this process may use: those of CUDA_VISIBLE_DEVICES, else the device files there are."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    files = len([path for path in devices.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])
    if named is None or not files:
        return files
    return len([name for name in named.split(",") if name.strip() and name.strip() != "-1"])
