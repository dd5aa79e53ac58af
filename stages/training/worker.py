"""`python -m stages.training.worker JOB.json`: one rank of a training."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path

from stages.contract.errors import ExitCode, StageError
from stages.training.job import Job, Outcome, write_whole

PARENT_POLL_S = 1.0


def main(path: Path) -> int:
    job = Job.model_validate_json(path.read_text())
    rank = int(os.environ["RANK"])
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    try:
        from stages.training.work import work

        outcome = work(job)
    except StageError as error:
        outcome = Outcome(code=error.code, message=error.message, where=error.where, hint=error.hint)
    except Exception as error:
        traceback.print_exc()
        outcome = _unforeseen(error)
    if outcome.code != ExitCode.DONE or rank == 0:
        write_whole(job.outcome(rank), outcome)
    return int(outcome.code)


def _unforeseen(error: Exception) -> Outcome:
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        hint = "lower micro_batch, or set gradient_checkpointing or zero_stage: 3"
        return Outcome(code=ExitCode.OUT_OF_MEMORY, message=f"out of memory: {text}", hint=hint)
    return Outcome(code=ExitCode.BUG, message=f"{type(error).__name__}: {text}")


def _end_with(parent: int) -> None:
    """Ends this process when the stage's is gone: killed, it could not end it itself."""
    while True:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(ExitCode.INTERRUPTED)
        time.sleep(PARENT_POLL_S)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: taking down process groups can wait forever for a rank that has died.
    os._exit(status)
