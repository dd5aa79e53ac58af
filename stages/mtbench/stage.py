"""mtbench: replies, a judge → a grade for each student, question and turn (single-answer grading).

The last turn is graded with the turns before it in sight, as MT-Bench does it (Zheng et al. 2023, arXiv 2306.05685).
A grade that cannot be read is a row with a reason and no grade.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.generation.prompts import render
from stages.generation.request import Completion, Request
from stages.generation.seeds import sampling_seed
from stages.generation.teacher import Generator
from stages.judging.ask import Row, judge_rows, why_unread
from stages.judging.read import Answered, answered
from stages.mtbench.parsing import parse_grade
from stages.mtbench.settings import MtbenchSettings

_TURN = pa.struct([("question", pa.string()), ("reference", pa.string()), ("answer", pa.string())])
_KEYS = [
    ("question_id", pa.string()),
    ("category", pa.string()),
    ("student", pa.string()),
    ("seed", pa.int64()),
    ("turn", pa.int32()),
]
ASKED = pa.schema([*_KEYS, ("turns", pa.list_(_TURN))])
SCHEMA = pa.schema([*_KEYS, ("grade", pa.float64()), ("reason", pa.string()), ("judgement", pa.string())])


def run(context: StageContext) -> None:
    settings: MtbenchSettings = context.settings
    turns = make_table(to_grade(answered(context)), ASKED)
    judge_rows(context, turns, lambda rows, judge: _graded(rows, judge, settings), SCHEMA, unit="turns")


def to_grade(students: Sequence[Answered]) -> list[Row]:
    """One row a turn, with everything that was said up to it."""
    return [
        {
            "question_id": name,
            "category": last["category"],
            "student": each.student,
            "seed": each.seed,
            "turn": last["turn"],
            "turns": [{key: turn[key] for key in ("question", "reference", "answer")} for turn in turns[: place + 1]],
        }
        for each in students
        for name, turns in each.turns.items()
        for place, last in enumerate(turns)
    ]


def _graded(turns: Sequence[Row], judge: Generator, settings: MtbenchSettings) -> list[Row]:
    requests = []
    for row in turns:
        text = render(settings.template, turns=row["turns"])
        seed = sampling_seed("grade", settings.seed, *(row[name] for name, _ in _KEYS))
        requests.append(Request(judge.prompt(text), seed, settings.sampling))
    return [_row(row, completion) for row, completion in zip(turns, judge.generate(requests), strict=True)]


def _row(turn: Row, completion: Completion) -> Row:
    grade, reason = parse_grade(completion.text)
    keys = {name: turn[name] for name, _ in _KEYS}
    told = {"reason": why_unread(reason, completion), "judgement": completion.text.strip()}
    return {**keys, "grade": grade, **told}
