"""replies: questions, a student → one row a question and turn. Later turns see the student's own earlier answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.generation.prompts import chat
from stages.generation.request import Completion, Message, Request
from stages.generation.seeds import sampling_seed
from stages.generation.teacher import Generator
from stages.influence.examples import PLAIN_NEXT_TURN
from stages.replies.settings import RepliesSettings

INPUT = "model"
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("category", pa.string()),
        ("turn", pa.int32()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("difficulty", pa.float64()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("output_tokens", pa.int32()),
    ]
)


def run(context: StageContext) -> None:
    settings: RepliesSettings = context.settings
    student = Generator(context, INPUT, settings.engine, settings.system, plain=True)
    for chunk in context.chunks(context.table("questions"), unit="questions"):
        questions = chunk.rows.to_pylist()
        rows = _answered(questions, student, settings)
        empty = sum(not row["answer"] for row in rows)
        cut = sum(row["finish_reason"] == "length" for row in rows)
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures={"replies": len(rows), "empty": empty, "cut": cut})
        context.meter.count(rows_in=len(questions), rows_kept=len(questions))


def _answered(
    questions: Sequence[dict[str, Any]], student: Generator, settings: RepliesSettings
) -> list[dict[str, Any]]:
    """All first turns together, then all second ones: one batch a turn."""
    rows: list[dict[str, Any]] = []
    talks: list[list[Message]] = [[] for _ in questions]
    for turn in range(max((len(each["turns"]) for each in questions), default=0)):
        asked = [place for place, each in enumerate(questions) if turn < len(each["turns"])]
        requests = []
        for place in asked:
            question = questions[place]
            text = question["turns"][turn]
            talks[place] += [{"role": "user", "content": text}] if turn else list(chat(text, settings.system))
            seed = sampling_seed("reply", settings.seed, question["question_id"], turn)
            # What a student asks itself next is no part of its answer. Nothing else ends one: unlike a task's answer, a
            # reply may have a line "Question:" in it.
            sampling = settings.sampling_of(question["category"])
            requests.append(Request(student.conversation(talks[place]), seed, sampling, stop=(PLAIN_NEXT_TURN,)))
        for place, completion in zip(asked, student.generate(requests), strict=True):
            rows.append(_row(questions[place], turn, completion))
            talks[place].append({"role": "assistant", "content": rows[-1]["answer"]})
    order = {each["question_id"]: place for place, each in enumerate(questions)}
    return sorted(rows, key=lambda row: (order[row["question_id"]], row["turn"]))


def _row(question: dict[str, Any], turn: int, completion: Completion) -> dict[str, Any]:
    references = question["references"]
    return {
        "question_id": question["question_id"],
        "category": question["category"],
        "turn": turn + 1,
        "question": question["turns"][turn],
        "reference": references[turn] if references else None,
        "difficulty": question["difficulty"],
        "answer": completion.text.removesuffix(PLAIN_NEXT_TURN).strip(),
        "finish_reason": completion.finish_reason,
        "output_tokens": completion.output_tokens,
    }
