"""evalset: a source, or the held-out reference rows → question_id, category, turns, references, difficulty."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import isfinite
from typing import Any, TypeGuard

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.errors import StageError, bad_data
from stages.contract.tables import make_table
from stages.evalset.settings import EvalsetSettings
from stages.harness.adapter import documents
from stages.prepare.clean import clean_text, row_texts
from stages.prepare.read import BadRow, RawRow, raw_rows
from stages.prepare.settings import Source

TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("category", pa.string()),
        ("turns", TEXTS),
        ("references", TEXTS),
        ("difficulty", pa.float64()),
    ]
)
COLUMNS = ("question_id", "prompt_id", "category", "turns", "prompt", "reference", "difficulty")
Question = dict[str, Any]


def run(context: StageContext) -> None:
    settings: EvalsetSettings = context.settings
    context.progress.begin(1, unit="sources", phase="reading")
    with context.meter.phase("compute"):
        questions = list(islice(_questions(context, settings), settings.limit))
    if not questions:
        raise bad_data("there is no question to ask", where=context.task.node)
    twice = len(questions) - len({each["question_id"] for each in questions})
    if twice:
        raise bad_data(f"{twice} questions have an id or a text that another one has", where=context.task.node)
    context.meter.count(rows_in=len(questions), rows_kept=len(questions))
    context.progress.advance()
    context.publish(tables={"rows": make_table(questions, SCHEMA)}, figures={"questions": len(questions)})


def _questions(context: StageContext, settings: EvalsetSettings) -> Iterator[Question]:
    if settings.harness is not None:
        # A task may stand alone and in a group that is asked for as well.
        found = {
            name: _question(name, task, told)
            for task in settings.harness.tasks
            for name, told in documents(task, settings.harness)
        }
        yield from found.values()
    elif settings.which == "mtbench":
        for row in _rows(context, settings.mtbench):
            yield _turns(row, settings.mtbench)
    elif settings.winrate is None:
        for row in context.table("reference", "heldout").to_pylist():
            yield _question(row["ref_id"], "", [row["instruction"]])
    else:
        for row in _rows(context, settings.winrate):
            texts = row_texts(row, settings.winrate.fields, response_needed=False)
            if isinstance(texts, BadRow):
                raise _refused(settings.winrate, texts.line, texts.detail)
            difficulty = row.values.get("difficulty")
            if difficulty is not None and not (isinstance(difficulty, int | float) and isfinite(difficulty)):
                raise _refused(settings.winrate, row.line, f"`difficulty` is not a number: {difficulty!r}")
            found = _question(content_id("question", texts[0]), str(row.values.get("category") or ""), [texts[0]])
            yield {**found, "difficulty": difficulty}


def _rows(context: StageContext, source: Source) -> Iterator[RawRow]:
    for row in raw_rows(source, context.store, context.scratch, COLUMNS):
        if isinstance(row, BadRow):
            raise _refused(source, row.line, row.detail)
        yield row


def _turns(row: RawRow, source: Source) -> Question:
    """A question in MT-Bench's own form (FastChat's question.jsonl, with `reference` where it has one), or in that of
    the hub's HuggingFaceH4/mt_bench_prompts, which calls its turns `prompt`."""
    turns, reference = row.values.get("turns", row.values.get("prompt")), row.values.get("reference") or None
    if not _texts(turns):
        raise _refused(source, row.line, "`turns` is not a list of one or more texts")
    if reference is not None and not (_texts(reference) and len(reference) == len(turns)):
        raise _refused(source, row.line, f"`reference` is not a list of {len(turns)} texts, one a turn")
    name = row.values.get("question_id", row.values.get("prompt_id"))
    named = content_id("question", *turns) if name is None else str(name)
    return _question(named, str(row.values.get("category") or ""), turns, reference)


def _texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) and each.strip() for each in value)


def _question(name: str, category: str, turns: list[str], references: list[str] | None = None) -> Question:
    return {
        "question_id": name,
        "category": category,
        "turns": [clean_text(each) for each in turns],
        "references": references,
        "difficulty": None,
    }


def _refused(source: Source, line: int, detail: str) -> StageError:
    return bad_data(detail, where=f"{source.shown}, line {line}", hint="correct the row or take it out")
