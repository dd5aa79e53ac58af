"""What processes that work on one thing together need: an address, threads, an end when their parent ends."""

from __future__ import annotations

import os
import socket
import threading
import time

from stages.contract.errors import ExitCode

PARENT_POLL_S = 1.0


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def threads_a_rank(ranks: int) -> int:
    """CPU threads of each of `ranks` processes that share this machine's cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else max(1, len(os.sched_getaffinity(0)) // ranks)


def rank_environment(rank: int, ranks: int, port: int, device: str) -> dict[str, str]:
    """What torch.distributed and DeepSpeed read: one rank of several on this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": device,
    }


def use_gloo() -> None:
    """Leaves DeepSpeed's shared-memory collectives alone: they need a compiler and work on one host only."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone: killed, it could not end it itself."""

    def watch() -> None:
        while True:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(ExitCode.INTERRUPTED)
            time.sleep(PARENT_POLL_S)

    threading.Thread(target=watch, daemon=True).start()
