"""`python -m stages.training.worker JOB.json`: one rank of a training."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from stages.contract.errors import ExitCode, StageError, unforeseen
from stages.distributed import end_with
from stages.imports import leave_out_sklearn
from stages.training.job import Job, Outcome, write_whole


def main(path: Path) -> int:
    job = Job.model_validate_json(path.read_text())
    rank = int(os.environ["RANK"])
    end_with(job.parent)
    leave_out_sklearn()
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
    code, text = unforeseen(error)
    hint = "lower micro_batch, or set gradient_checkpointing or zero_stage: 3"
    return Outcome(code=code, message=text, hint=hint if code == ExitCode.OUT_OF_MEMORY else None)


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: taking down process groups can wait forever for a rank that has died.
    os._exit(status)
