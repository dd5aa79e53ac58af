"""Reading what students answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.contract.context import StageContext
from stages.contract.errors import bad_settings
from stages.evaluate.names import split_replica

PREFIX = "replies."
JUDGE = "judge"
Row = dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """One student's answers: its name, the training seed (None where it was trained once or not at all), its turns
    by question."""

    student: str
    seed: int | None
    turns: dict[str, list[Row]]


def answered(context: StageContext) -> list[Answered]:
    """The answers of every student that is an input `replies.STUDENT`, or `replies.STUDENT.seed-N`.

    Raises:
        StageError: BAD_SETTINGS where there is none.
    """
    found = []
    for name in context.names(PREFIX):
        student, seed = split_replica(name.removeprefix(PREFIX))
        turns: dict[str, list[Row]] = {}
        for row in context.table(name).to_pylist():
            turns.setdefault(row["question_id"], []).append(row)
        found.append(Answered(student, seed, turns))
    if not found:
        raise bad_settings("there are no replies to judge", where=context.task.key, hint="name inputs replies.STUDENT")
    return found
