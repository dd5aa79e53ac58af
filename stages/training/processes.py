"""The ranks of one pod as processes: their command, their environment, their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from stages.distributed import free_port, rank_environment, threads_a_rank
from stages.training.job import Job


def start_ranks(job: Job, description: Path, address: str, port: int) -> subprocess.Popen[bytes]:
    """Starts this pod's ranks as one process, a session of its own: torchrun, or the only rank itself.

    Args:
        description: the file that the job is written in.
        address, port: where the first pod's ranks listen, if there are several pods.
    """
    return subprocess.Popen(
        [*_launcher(job, address, port), "stages.training.worker", str(description)],
        env={**os.environ, **_environment(job)},
        start_new_session=True,
    )


def end_ranks(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of the processes; after a normal end nothing is."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _launcher(job: Job, address: str, port: int) -> list[str]:
    if job.ranks == 1:
        return [sys.executable, "-m"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={job.ranks_here}"]
    if job.pods == 1:
        return [*torchrun, "--standalone", "-m"]
    meeting = [f"--nnodes={job.pods}", f"--node-rank={job.place}", f"--master-addr={address}", f"--master-port={port}"]
    return [*torchrun, *meeting, "-m"]


def _environment(job: Job) -> dict[str, str]:
    environment = {
        "HF_DATASETS_CACHE": str(job.folder / "datasets"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",  # the model is a folder: nothing is to be asked for
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    if job.device == "cpu":
        # torchrun gives each rank one thread otherwise
        environment["OMP_NUM_THREADS"] = str(threads_a_rank(job.ranks_here))
    if job.ranks == 1:
        return environment | rank_environment(0, 1, free_port(), job.device)
    return environment | {"DS_ACCELERATOR": job.device}
