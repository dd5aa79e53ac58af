"""incontext: candidates, student, preference set → the student's accuracy with each candidate as its one shot.

This is where ARTE's cost lies: candidates x questions short generations. A prompt is the example, then the question,
so all requests of a candidate begin with the same tokens, and they are sent together: an engine that caches prefixes
computes the example once, and each question costs itself and a few tokens of answer. The other order computes the
example for every question (bench/incontext.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.asking.requests import Answered, Asker
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.generation.teacher import Generator
from stages.incontext.settings import IncontextSettings
from stages.signals.rows import Row, candidates, scored, with_columns

METHOD = "incontext"
SCHEMA = with_columns(
    ("task", pa.string()),
    ("asked", pa.int32()),
    ("parsed", pa.int32()),
    ("correct", pa.int32()),
    ("characters", pa.int32()),
)


def run(context: StageContext) -> None:
    settings: IncontextSettings = context.settings
    rows = candidates(context)
    questions = _questions(context)
    missing = sorted(set(rows["task"].to_pylist()) - questions.keys())
    if missing:
        raise bad_data(f"the preference set has no question of {missing[0]}", where=f"{context.task.node}: preference")
    asker = Asker(
        Generator(context, "student", settings.engine, settings.system, plain=True),
        settings,
        context.table("tasks", "tasks").to_pylist(),
        [each for some in questions.values() for each in some],
    )
    for chunk in context.chunks(rows, unit="candidates"):
        listed: list[Row] = chunk.rows.to_pylist()
        asked = [(row, item) for row in listed for item in questions[row["task"]]]
        # A candidate's requests side by side: the example is in the cache when the second comes.
        requests = [(item, asker.request(item, [(row["instruction"], row["response"])])) for row, item in asked]
        answers = iter(asker.ask(requests))
        made = [_scored(row, [next(answers) for _ in questions[row["task"]]], settings) for row in listed]
        context.meter.count(rows_in=len(made), rows_kept=sum(row["score"] is not None for row in made))
        chunk.commit(
            {"rows": make_table(made, SCHEMA)},
            figures={
                "answers": len(asked),
                "unparsed": sum(row["asked"] - row["parsed"] for row in made),
                "unscored": sum(row["score"] is None for row in made),
            },
        )


def _questions(context: StageContext) -> dict[str, list[Mapping[str, Any]]]:
    """The preference set by task, always in the same order."""
    table = context.table("preference")
    chosen = table.filter(pc.equal(table["chosen"], True)).to_pylist()
    found: dict[str, list[Mapping[str, Any]]] = {}
    for each in sorted(chosen, key=lambda each: str(each["item_id"])):
        found.setdefault(each["task"], []).append(each)
    return found


def _scored(row: Row, answers: Sequence[Answered], settings: IncontextSettings) -> Row:
    correct = np.array([each.correct for each in answers], dtype=np.float64)
    parsed = sum(each.answer is not None for each in answers)
    reason = None
    if all(each.finish_reason == "prompt_too_long" for each in answers):
        reason = "prompt_too_long"
    elif not parsed:
        reason = "no answer could be parsed"
    elif parsed < settings.least_parsed * len(answers):
        reason = f"{parsed} of {len(answers)} answers could be parsed"
    spread = float(correct.std(ddof=1) / np.sqrt(len(correct))) if len(correct) > 1 else None
    return scored(
        row,
        METHOD,
        float(correct.mean()) if reason is None else None,
        stderr=spread if reason is None else None,
        tokens=sum(each.output_tokens for each in answers),
        reason=reason,
        task=row["task"],
        asked=len(answers),
        parsed=parsed,
        correct=int(correct.sum()),
        characters=len(row["response"]),
    )
