"""winrate: replies, a judge → two rows a comparison, one for each order in which the answers were shown.

What the judge said that cannot be read is a row with a reason and no verdict. Rates are made of these rows by
`comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings
from stages.contract.tables import make_table
from stages.generation.prompts import render
from stages.generation.request import Completion, Request
from stages.generation.seeds import sampling_seed
from stages.generation.teacher import Generator
from stages.judging.ask import Row, judge_rows, why_unread
from stages.judging.read import PREFIX, Answered, answered
from stages.winrate.parsing import parse_verdict
from stages.winrate.settings import WinrateSettings

STUDENT, BASELINE, TIE = "student", "baseline", "tie"
COMPARISONS = pa.schema(
    [
        ("question_id", pa.string()),
        ("category", pa.string()),
        ("student", pa.string()),
        ("seed", pa.int64()),
        ("instruction", pa.string()),
        ("student_answer", pa.string()),
        ("baseline_answer", pa.string()),
        ("difficulty", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("category", pa.string()),
        ("student", pa.string()),
        ("baseline", pa.string()),
        ("seed", pa.int64()),
        ("first", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("student_length", pa.int64()),
        ("baseline_length", pa.int64()),
        ("difficulty", pa.float64()),
        ("judgement", pa.string()),
    ]
)


def run(context: StageContext) -> None:
    settings: WinrateSettings = context.settings
    pairs = make_table(comparisons(answered(context), settings.baseline), COMPARISONS)
    if not pairs.num_rows:
        raise bad_data("no question was answered by a student and the baseline", where=context.task.node)
    judge_rows(context, pairs, lambda rows, judge: _judged(rows, judge, settings), SCHEMA, unit="comparisons")


def comparisons(students: Sequence[Answered], baseline: str) -> list[Row]:
    """Every student's answer beside the baseline's, by question. A replica meets the baseline's of its own seed, or
    its only one.

    Raises:
        StageError: BAD_SETTINGS where the baseline, or every other student, is missing.
    """
    theirs = {each.seed: each for each in students if each.student == baseline}
    others = [each for each in students if each.student != baseline]
    if not theirs or not others:
        names = sorted({each.student for each in students})
        raise bad_settings(
            f"{names} cannot be compared with {baseline!r}: it takes the baseline and another student",
            where=f"inputs {PREFIX}*",
        )
    rows = []
    for each in others:
        against = theirs.get(each.seed) or next(iter(theirs.values()))
        for name, turns in each.turns.items():
            if name in against.turns:
                rows.append(
                    {
                        "question_id": name,
                        "category": turns[0]["category"],
                        "student": each.student,
                        "seed": each.seed,
                        "instruction": turns[0]["question"],
                        "student_answer": turns[0]["answer"],
                        "baseline_answer": against.turns[name][0]["answer"],
                        "difficulty": turns[0]["difficulty"],
                    }
                )
    return rows


def _judged(pairs: Sequence[Row], judge: Generator, settings: WinrateSettings) -> list[Row]:
    asked, requests = [], []
    for pair in pairs:
        for first, second in ((STUDENT, BASELINE), (BASELINE, STUDENT)):
            text = render(
                settings.template,
                instruction=pair["instruction"],
                answer_a=pair[f"{first}_answer"],
                answer_b=pair[f"{second}_answer"],
            )
            seed = sampling_seed("verdict", settings.seed, pair["question_id"], pair["student"], pair["seed"], first)
            requests.append(Request(judge.prompt(text), seed, settings.sampling))
            asked.append((pair, first, second))
    completions = judge.generate(requests)
    return [
        _row(pair, first, second, completion, settings.baseline)
        for (pair, first, second), completion in zip(asked, completions, strict=True)
    ]


def _row(pair: Row, first: str, second: str, completion: Completion, baseline: str) -> Row:
    verdict, reason = parse_verdict(completion.text)
    return {
        **{name: pair[name] for name in ("question_id", "category", "student", "seed", "difficulty")},
        "baseline": baseline,
        "first": first,
        "verdict": None if verdict is None else {"A": first, "B": second, "C": TIE}[verdict],
        "reason": why_unread(reason, completion),
        "student_length": len(pair["student_answer"]),
        "baseline_length": len(pair["baseline_answer"]),
        "judgement": completion.text.strip(),
    }
