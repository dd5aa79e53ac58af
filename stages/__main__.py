"""`python -m stages TASK_URI`: the entry point of every stage's container."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from stages.contract.catalog import STAGES, spec
from stages.contract.errors import ExitCode
from stages.contract.execute import execute


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        # only here: a stage must not need the settings of all others to start
        table = "\n".join(f"  {name:14} {spec(name).about}" for name in STAGES)
        codes = "\n".join(f"  {code.value:3} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
        return f"{super().format_help()}\nstages:\n{table}\n\nexit codes:\n{codes}\n"

    def error(self, message: str) -> NoReturn:
        self.exit(int(ExitCode.BAD_SETTINGS), f"error: {message} (python -m stages --help)\n")


def main() -> int:
    parser = _Parser(prog="python -m stages", description="Run one shard of one task of a run.")
    parser.add_argument("task", help="URI of a task: file:///STORE/runs/RUN/tasks/NODE-1.json or s3://…")
    parser.add_argument("--index", type=int, default=None, help="which of the task's shards (JOB_COMPLETION_INDEX)")
    arguments = parser.parse_args()
    return execute(arguments.task, arguments.index)


if __name__ == "__main__":
    sys.exit(main())
