"""judge: candidates → the mean of a judge's ratings, every answer kept beside them.

An answer without a rating counts as an answer without a rating: it lowers no mean and is told by reason. A candidate
of which no answer could be read has no score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.generation.gate import Gate, tally
from stages.generation.prompts import render
from stages.generation.request import Completion, Request
from stages.generation.seeds import sampling_seed
from stages.generation.teacher import Generator
from stages.judge.rating import parse_rating
from stages.judge.settings import JudgeSettings
from stages.signals.rows import Row, candidates, scored, with_columns

ROWS = with_columns(("ratings", pa.list_(pa.float64())))
ANSWERS = pa.schema(
    [
        ("response_id", pa.string()),
        ("sample", pa.int32()),
        ("sampling_seed", pa.int64()),
        ("answer", pa.string()),
        ("rating", pa.float64()),
        ("reason", pa.string()),
    ]
)


def run(context: StageContext) -> None:
    settings: JudgeSettings = context.settings
    judge = Generator(context, "judge", settings.engine, settings.system)
    gate = Gate(context, "parsed", "least_parsed", least=settings.least_parsed, after=settings.gate_after)
    for chunk in context.chunks(candidates(context), unit="candidates"):
        listed = chunk.rows.to_pylist()
        answers = _answers(listed, judge, settings)
        rows = [_scored(row, mine) for row, mine in zip(listed, _each(answers, settings.samples), strict=True)]
        figures = tally("parsed", (answer["reason"] for answer in answers))
        chunk.commit({"rows": make_table(rows, ROWS), "answers": make_table(answers, ANSWERS)}, figures=figures)
        gate.add(figures)
    context.publish(figures={**gate.figures, "method": "judge"})


def _answers(listed: Sequence[Row], judge: Generator, settings: JudgeSettings) -> list[Row]:
    """`samples` answers for each candidate, candidates one after the other."""
    asked, requests = [], []
    for row in listed:
        text = render(settings.template, instruction=row["instruction"], response=row["response"])
        prompt = judge.prompt(text, settings.prefill)
        for sample in range(settings.samples):
            asked.append((row["response_id"], sample))
            seed = sampling_seed("judge", settings.seed, row["response_id"], sample)
            requests.append(Request(prompt, seed, settings.sampling))
    completions = judge.generate(requests)
    return [
        _answer(response_id, sample, request.seed, completion, settings)
        for (response_id, sample), request, completion in zip(asked, requests, completions, strict=True)
    ]


def _answer(response_id: str, sample: int, seed: int, completion: Completion, settings: JudgeSettings) -> Row:
    begun = settings.prefill if completion.text.strip() else ""
    rating, reason = parse_rating(begun + completion.text, settings.most)
    if completion.finish_reason == "prompt_too_long":
        reason = "prompt_too_long"
    elif reason == "no_score" and completion.finish_reason == "length":
        reason = "cut_before_score"
    return {
        "response_id": response_id,
        "sample": sample,
        "sampling_seed": seed,
        "answer": completion.text,
        "rating": rating,
        "reason": reason,
    }


def _each(answers: Sequence[Row], samples: int) -> Iterator[Sequence[Row]]:
    for first in range(0, len(answers), samples):
        yield answers[first : first + samples]


def _scored(row: Row, answers: Sequence[Row]) -> Row:
    ratings = [answer["rating"] for answer in answers if answer["rating"] is not None]
    if not ratings:
        reasons: Any = sorted({answer["reason"] for answer in answers})
        return scored(row, "judge", None, ratings=[], reason=f"unrated: {', '.join(reasons)}")
    error = stdev(ratings) / math.sqrt(len(ratings)) if len(ratings) > 1 else None
    return scored(row, "judge", mean(ratings), stderr=error, ratings=ratings)
