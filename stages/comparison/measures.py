"""One measure of all students: values, and their paired resamples.

A question counts for a student if all its training seeds have a value for it, so what a judge's answer that could not
be read costs one student costs no other. Two students are compared on the questions that count for both.

Shapes: N training seeds, R questions, S resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from zlib import crc32

import numpy as np

from stages.comparison.grid import Chosen, Grid, Row, grid
from stages.comparison.length import at_equal_length, features, fit
from stages.comparison.settings import ComparisonSettings
from stages.evaluate.bootstrap import Floats, PairedBootstrap, token_mean

Better = Literal["lower", "higher"]
Scorer = Callable[[str, Chosen], "Score"]  # a student on the chosen of the R questions
_PER_CENT = (0.0, 100.0)


@dataclass(frozen=True)
class Score:
    """A student's value, its resamples [S], over how many questions and seeds.

    Attributes:
        unit: what it can be compared with: two students of other units have no difference.
        within: bounds of every question's value, where it has any.
    """

    value: float
    resampled: Floats
    items: int
    seeds: int
    unit: str = ""
    within: tuple[float, float] | None = None


@dataclass(frozen=True)
class Measure:
    """A column of the table: a measure of every student that has one.

    Attributes:
        scores: of each student on all questions that count for it.
        note: what is to be known of it.
        paired: two students' scores on the questions that count for both, None where there is none; where it is not
            given, all questions count for every student.
    """

    name: str
    title: str
    better: Better
    decimals: int
    scores: Mapping[str, Score]
    note: str = ""
    paired: Callable[[str, str], tuple[Score, Score] | None] | None = None

    def pair(self, first: str, second: str) -> tuple[Score, Score] | None:
        """The two on the same questions."""
        if self.paired is not None:
            return self.paired(first, second)
        return self.scores[first], self.scores[second]


def bootstrap(settings: ComparisonSettings, rows: int) -> PairedBootstrap:
    return PairedBootstrap(rows, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed)


def measured(
    name: str,
    title: str,
    better: Better,
    decimals: int,
    known: Mapping[str, Chosen],
    score: Scorer,
    note: str,
) -> Measure | None:
    """A measure out of the questions [R] that count for each student; None where none counts for anybody."""
    known = {student: each_R for student, each_R in known.items() if each_R.any()}
    scores = {student: score(student, each_R) for student, each_R in known.items()}

    @cache
    def beside(student: str, other: str) -> Score:
        shared_R = known[student] & known[other]
        return scores[student] if np.array_equal(known[student], shared_R) else score(student, shared_R)

    def paired(first: str, second: str) -> tuple[Score, Score] | None:
        if not (known[first] & known[second]).any():
            return None
        return beside(first, second), beside(second, first)

    return Measure(name, title, better, decimals, scores, note, paired) if scores else None


def losses(rows: Iterable[Row], settings: ComparisonSettings) -> Measure | None:
    """Held-out loss per token, from the rows of `evaluate`. Unequal tokenizers are unequal units."""
    listed = list(rows)
    nll, tokens = grid(listed, "ref_id", "nll"), grid(listed, "ref_id", "tokens")

    def score(student: str, chosen_R: Chosen) -> Score:
        nll_NR = nll.values[student][:, chosen_R]
        tokens_R = tokens.values[student][0, chosen_R].astype(np.int64)
        value = token_mean(nll_NR.mean(axis=0), tokens_R)
        resampled = bootstrap(settings, len(tokens_R)).replica_means(student, nll_NR, tokens_R)
        return Score(value, resampled, len(tokens_R), len(nll_NR), str(crc32(tokens_R.tobytes())))

    note = "nats per token, on reference rows that nothing saw"
    return measured("loss", "held-out loss", "lower", 4, nll.known(), score, note)


def means(
    name: str,
    title: str,
    values: Grid,
    settings: ComparisonSettings,
    *,
    decimals: int,
    better: Better = "higher",
    factor: float = 1,
    within: tuple[float, float] | None = None,
    note: str = "",
) -> Measure | None:
    """The mean of a value over questions; `factor` 100 makes per cent of shares, and no value
    of a question lies outside `within`."""
    note = " ".join(filter(None, [note, _left_out(values)]))
    return measured(name, title, better, decimals, values.known(), _mean(values, settings, factor, within), note)


def _mean(values: Grid, settings: ComparisonSettings, factor: float, within: tuple[float, float] | None) -> Scorer:
    def score(student: str, chosen_R: Chosen) -> Score:
        each_NR = values.values[student][:, chosen_R]
        seeds, questions = each_NR.shape
        ones_R = np.ones(questions, dtype=np.int64)
        return Score(
            factor * float(each_NR.mean()),
            factor * bootstrap(settings, questions).replica_means(student, each_NR, ones_R),
            questions,
            seeds,
            within=None if within is None else (factor * within[0], factor * within[1]),
        )

    return score


def grades(rows: Iterable[Row], settings: ComparisonSettings) -> Measure | None:
    """MT-Bench: the mean grade over questions of the mean over a question's turns, from the rows of `mtbench`."""
    turns: dict[tuple[Any, ...], list[float | None]] = {}
    for row in rows:
        turns.setdefault((row["student"], row["seed"], row["question_id"]), []).append(row["grade"])
    talks = [
        {
            "student": student,
            "seed": seed,
            "question_id": question,
            "grade": None if None in given else sum(each for each in given if each is not None) / len(given),
        }
        for (student, seed, question), given in turns.items()
    ]
    return means(
        "mtbench",
        "MT-Bench",
        grid(talks, "question_id", "grade"),
        settings,
        decimals=2,
        within=(1, 10),
        note="judge's grade, 1 to 10.",
    )


def benchmarks(rows: Iterable[Row], settings: ComparisonSettings) -> list[Measure]:
    """One column a task, from the rows of `harness`; in a group every document counts alike."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["benchmark"], []).append(row)
    found = []
    for task, of_task in by_task.items():
        values = grid(of_task, "document", "value")
        better: Better = "higher" if of_task[0]["higher_is_better"] else "lower"
        shares = all(np.nanmin(each_NR) >= 0 and np.nanmax(each_NR) <= 1 for each_NR in values.values.values())
        factor, unit, within = (100, " in per cent", (0.0, 1.0)) if shares else (1, "", None)  # it may be of any size
        note = f"{of_task[0]['metric']}{unit}, over {len(values.items)} documents."
        measure = means(
            f"harness_{task}",
            task,
            values,
            settings,
            decimals=1 if shares else 3,
            better=better,
            factor=factor,
            within=within,
            note=note,
        )
        if measure is not None:
            found.append(measure)
    return found


def win_rates(rows: Iterable[Row], settings: ComparisonSettings) -> list[Measure]:
    """Length-controlled and plain win rate against the baseline, from the rows of `winrate`."""
    pairs = preferences(rows)
    preferred, delta = grid(pairs, "question_id", "preference"), grid(pairs, "question_id", "delta")
    known = preferred.known()
    if not any(each_R.any() for each_R in known.values()):
        return []
    known[settings.baseline] = np.ones(len(preferred.items), dtype=np.bool_)
    difficulty_R = _difficulties(pairs, preferred.items)
    term = "" if difficulty_R is not None else ", without its term for difficulty, which not all questions bring"
    left_out = _left_out(preferred)

    def controlled(student: str, chosen_R: Chosen) -> Score:
        y_NR, delta_NR = (values.values[student][:, chosen_R] for values in (preferred, delta))
        return _controlled(student, y_NR, delta_NR, None if difficulty_R is None else difficulty_R[chosen_R], settings)

    def column(name: str, title: str, score: Scorer, how: str) -> Measure | None:
        note = f"per cent against {settings.baseline}{how}. {left_out}".rstrip()
        return measured(name, title, "higher", 1, known, _with_baseline(score, settings), note)

    plain = column("winrate", "win rate", _mean(preferred, settings, factor=100, within=(0, 1)), "")
    how = f", at equal length (AlpacaEval 2's regression{term})"
    return [each for each in (column("lc_winrate", "LC win rate", controlled, how), plain) if each is not None]


def preferences(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row a comparison out of one row an order: the mean of both verdicts (1 the student, ½ a tie, 0 the baseline),
    None where one of the two could not be read."""
    worth = {"student": 1.0, "tie": 0.5, "baseline": 0.0}
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["student"], row["seed"], row["question_id"]), []).append(row)
    return [
        {
            "student": student,
            "seed": seed,
            "question_id": question,
            "preference": None
            if any(each["verdict"] is None for each in orders)
            else sum(worth[each["verdict"]] for each in orders) / len(orders),
            "delta": orders[0]["student_length"] - orders[0]["baseline_length"],
            "difficulty": orders[0]["difficulty"],
        }
        for (student, seed, question), orders in found.items()
    ]


def _difficulties(pairs: Iterable[Row], items: Iterable[str]) -> Floats | None:
    """Of each question; None unless all have one."""
    known = {str(each["question_id"]): each["difficulty"] for each in pairs}
    found = [known[name] for name in items]
    return None if None in found else np.array(found, dtype=np.float64)


def _controlled(
    student: str, y_NR: Floats, delta_NR: Floats, difficulty_R: Floats | None, settings: ComparisonSettings
) -> Score:
    """A regression for each replica, which is a model of its own; lengths are in one unit for all of them."""
    seeds, questions = y_NR.shape
    if (y_NR == y_NR[0, 0]).all():  # there is nothing for a length to explain
        every = 100 * float(y_NR[0, 0])
        return Score(every, np.full(settings.resamples, every), questions, seeds, within=_PER_CENT)
    draw = bootstrap(settings, questions)
    difficulty_O = None if difficulty_R is None else np.tile(difficulty_R, seeds)
    x_NRK = features(delta_NR.ravel(), difficulty_O).reshape(seeds, questions, -1)

    def rate(x_RK: Floats, y_R: Floats, weight_SR: Floats) -> Floats:
        return at_equal_length(x_RK, fit(x_RK, y_R, weight_SR, length_prior=settings.length_prior), weight_SR)

    value = np.mean(
        [rate(x_RK, y_R, np.ones((1, questions), dtype=np.float64))[0] for x_RK, y_R in zip(x_NRK, y_NR, strict=True)]
    )
    rate_SN = np.stack(
        [
            np.concatenate([rate(x_RK, y_R, counts_SR.astype(np.float64)) for counts_SR in draw.draws()])
            for x_RK, y_R in zip(x_NRK, y_NR, strict=True)
        ],
        axis=1,
    )
    resampled = (rate_SN * draw.seed_weights(student, seeds)).sum(axis=1)
    return Score(100 * float(value), 100 * resampled, questions, seeds, within=_PER_CENT)


def _with_baseline(score: Scorer, settings: ComparisonSettings) -> Scorer:
    """The baseline against itself is 50 by construction."""

    def scored(student: str, chosen_R: Chosen) -> Score:
        if student != settings.baseline:
            return score(student, chosen_R)
        return Score(50.0, np.full(settings.resamples, 50.0), int(chosen_R.sum()), 1, within=(50.0, 50.0))

    return scored


def _left_out(values: Grid) -> str:
    counts = {student: int(each_R.sum()) for student, each_R in values.known().items()}
    fewer = [f"{number} for {student}" for student, number in counts.items() if number < len(values.items)]
    if not fewer:
        return ""
    silent = [f" {student} is in no cell." for student, number in counts.items() if not number]
    return (
        f"Of {len(values.items)} questions count {', '.join(fewer)}: those with a value for each of its training "
        f"seeds. Two students are compared on what counts for both.{''.join(silent)}"
    )
