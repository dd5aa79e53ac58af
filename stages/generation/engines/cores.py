"""How many CPU cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cgroup_limit: Path = CGROUP_LIMIT) -> int:
    """Cores by affinity, and by the container's CPU limit (cgroup v2) where that is lower; at least 1.

    A pod limited to 4 CPUs of a 64-core node sees all 64; 64 threads in 4 CPUs' time are slower than 4.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cgroup_limit.is_file():
        quota, period = cgroup_limit.read_text().split()[:2]
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)
