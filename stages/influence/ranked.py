"""A scorer over several processes that share one student by ZeRO-3 (zero.py).

The stage's process keeps the rows and the store; each rank is a process that waits for a command, does its part and
answers, rank 0 with the result. A rank that fails says why; the others wait for it in an exchange and are ended.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from stages.contract.errors import ExitCode, StageError, unforeseen
from stages.distributed import end_with, free_port, rank_environment, threads_a_rank, use_gloo
from stages.imports import leave_out_sklearn
from stages.influence.examples import Example
from stages.influence.results import ExactResult, FirstOrderResult
from stages.influence.scorer import Base, LocalScorer, Scoring

# Not fork: a process that has used CUDA or its threads cannot be copied.
_START = "spawn"
_READY = "ready"
_LATE_S = 2.0


class RankedScorer:
    """`ranks` processes on this machine, one a GPU; `close` ends them.

    Raises:
        StageError: what a rank raised while it loaded; OUT_OF_MEMORY if one was killed.
    """

    def __init__(self, scoring: Scoring, ranks: int) -> None:
        context: Any = multiprocessing.get_context(_START)
        port, threads = free_port(), threads_a_rank(ranks)
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        for rank in range(ranks):
            environment = rank_environment(rank, ranks, port, scoring.device)
            ours, theirs = context.Pipe()
            arguments = (theirs, scoring, environment, threads, os.getpid())
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        self._answers()

    def base(self) -> Base:
        return self._ask("base")

    def first_orders(self, examples: Sequence[Example]) -> list[FirstOrderResult]:
        return self._ask("first_orders", list(examples))

    def exact(self, example: Example) -> ExactResult:
        return self._ask("exact", example)

    def corrected(self, example: Example, first: FirstOrderResult) -> ExactResult:
        return self._ask("corrected", example, first)

    def correct(self, first: FirstOrderResult, exact: ExactResult) -> tuple[float, float]:
        return self._ask("correct", first, exact)

    def noise(self, examples: Sequence[Example], draws: int) -> dict[str, float]:
        return self._ask("noise", list(examples), draws)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def _ask(self, command: str, *arguments: Any) -> Any:
        for connection in self._connections:
            try:
                connection.send((command, arguments))
            except OSError:
                break  # it ended: reading its answer says why
        return self._answers()[0]

    def _answers(self) -> list[Any]:
        """Each rank's answer."""
        answers: dict[int, Any] = {}
        while len(answers) < len(self._connections):
            waiting = [each for rank, each in enumerate(self._connections) if rank not in answers]
            failed = []
            for ready in multiprocessing.connection.wait(waiting):
                rank = self._connections.index(ready)  # type: ignore[arg-type]
                kind, value = self._message(rank)
                answers[rank] = value
                if kind == "error":
                    failed.append(value)
            if failed:
                # Of several ranks' errors one that a person can act on is worth more than a lost connection.
                failed += self._late_errors([rank for rank in range(len(self._connections)) if rank not in answers])
                self.close()
                raise min(failed, key=lambda error: error.code == ExitCode.BUG)
        return [answers[rank] for rank in range(len(self._connections))]

    def _late_errors(self, ranks: Sequence[int]) -> list[StageError]:
        """Errors of the ranks that had not answered when another one failed."""
        found = []
        for rank in ranks:
            if self._connections[rank].poll(_LATE_S):
                kind, value = self._message(rank)
                if kind == "error":
                    found.append(value)
        return found

    def _message(self, rank: int) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = self._connections[rank].recv()
        except (EOFError, OSError):
            return "error", self._ended(rank)
        return message

    def _ended(self, rank: int) -> StageError:
        self._processes[rank].join()
        status = self._processes[rank].exitcode
        if status == -signal.SIGKILL:
            return StageError(
                f"rank {rank} of the probe was killed, most likely for want of memory",
                code=ExitCode.OUT_OF_MEMORY,
                hint="more ranks, gradient_groups: 0 or gradient_checkpointing: true",
            )
        return StageError(f"rank {rank} of the probe ended with status {status}; its log says why", code=ExitCode.BUG)


def _serve(connection: Connection, scoring: Scoring, environment: dict[str, str], threads: int, parent: int) -> None:
    """One rank: load, then answer until the stage's process is gone."""
    # A terminal's Ctrl-C and a kubelet's SIGTERM are the stage's to act on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    os.environ.update(environment)
    leave_out_sklearn()
    try:
        scorer = _scorer(scoring, threads)
        connection.send(("answer", _READY))
        while True:
            command, arguments = connection.recv()
            answer = getattr(scorer, command)(*arguments)
            connection.send(("answer", answer if environment["RANK"] == "0" else None))
    except EOFError:
        pass
    except StageError as error:
        connection.send(("error", error))
    except BaseException as error:
        traceback.print_exc()
        code, text = unforeseen(error)
        connection.send(("error", StageError(text, code=code)))
    sys.stderr.flush()
    # Not a return: taking down process groups can wait forever for a rank that has died.
    os._exit(0)


def _scorer(scoring: Scoring, threads: int) -> LocalScorer:
    import torch

    torch.set_num_threads(threads)
    use_gloo()
    import deepspeed

    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cpu") if scoring.device == "cpu" else torch.device("cuda", rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    deepspeed.init_distributed(dist_backend="gloo" if device.type == "cpu" else "nccl", verbose=False)

    from stages.influence.zero import Zero

    return LocalScorer(scoring, device=device, ranks=Zero(device))
