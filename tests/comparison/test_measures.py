"""Measures and their table: what is paired, what is left out, what is marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.comparison.grid import grid
from stages.comparison.measures import Measure, benchmarks, losses, means, preferences, win_rates
from stages.comparison.measures import grades as mtbench
from stages.comparison.settings import ComparisonSettings
from stages.comparison.table import Marker, cells, differences

SETTINGS = ComparisonSettings(baseline="self-instruct", resamples=800)
MARKER = Marker(SETTINGS)
QUESTIONS = 120
LEVEL_R = np.random.default_rng(0).normal(5, 2, QUESTIONS)  # questions differ more than students
Rows = list[dict[str, Any]]


def grades(student: str, gain: float, *, seed: int | None = None) -> Rows:
    random = np.random.default_rng([len(student), seed or 0])
    return [
        {"student": student, "seed": seed, "question_id": f"q{n}", "grade": level + gain + random.normal(0, 0.3)}
        for n, level in enumerate(LEVEL_R)
    ]


def measured(rows: Rows) -> Measure:
    found = means("mtbench", "MT-Bench", grid(rows, "question_id", "grade"), SETTINGS, decimals=2)
    assert found is not None
    return found


def by_student(measure: Measure) -> dict[str, dict[str, Any]]:
    return {row["student"]: row for row in cells(measure, SETTINGS.baseline, MARKER)}


def test_cells_that_cannot_be_told_apart_are_marked() -> None:
    rows = grades("tailored", 0.5) + grades("self-instruct", 0.0) + grades("random", 0.5)
    for row in rows[-QUESTIONS:]:
        row["grade"] -= 0.01
    found = by_student(measured(rows))
    best = next(name for name, row in found.items() if row["best"])
    other = {"tailored": "random", "random": "tailored"}[best]
    assert found[best]["like_best"] is None and found[best]["like_baseline"] is False
    assert found[other]["like_best"] is True and found[other]["like_baseline"] is False
    assert found["self-instruct"]["like_best"] is False and found["self-instruct"]["like_baseline"] is None
    assert found[best]["low"] < found["self-instruct"]["high"]  # the intervals alone would not show it


def test_where_less_is_better_the_least_is_the_best() -> None:
    rows = [
        {"student": student, "seed": None, "ref_id": f"r{n}", "nll": 100.0 * loss, "tokens": 100}
        for student, loss in (("base", 3.0), ("tailored", 2.0))
        for n in range(10)
    ]
    measure = losses(rows, SETTINGS)
    assert measure is not None
    assert [row["student"] for row in cells(measure, "base", MARKER) if row["best"]] == ["tailored"]


def test_where_less_of_a_benchmarks_metric_is_better_the_least_is_the_best() -> None:
    rows = [
        {"student": student, "seed": None, "benchmark": "bias", "document": f"d{n}", "value": value + n % 3}
        | {"metric": "likelihood_diff", "higher_is_better": False}
        for student, value in (("self-instruct", 1.25), ("tailored", 4.0))
        for n in range(12)
    ]
    (measure,) = benchmarks(rows, SETTINGS)
    found = by_student(measure)
    assert (measure.better, found["self-instruct"]["best"], found["tailored"]["like_best"]) == ("lower", True, False)
    assert found["self-instruct"]["value"] == pytest.approx(2.25) and "per cent" not in measure.note


def test_students_of_different_tokenizers_have_cells_but_no_likeness() -> None:
    rows = [
        {"student": student, "seed": None, "ref_id": f"r{n}", "nll": 100.0, "tokens": tokens}
        for student, tokens in (("base", 100), ("foreign", 90))
        for n in range(10)
    ]
    measure = losses(rows, SETTINGS)
    assert measure is not None
    assert differences(measure, MARKER) == []
    assert not any(row["like_best"] for row in cells(measure, "base", MARKER))


def test_a_question_without_a_grade_counts_for_the_others_and_is_stated() -> None:
    rows = grades("tailored", 0.5) + grades("self-instruct", 0.0)
    rows[7]["grade"] = None
    measure = measured(rows)
    assert {name: score.items for name, score in measure.scores.items()} == {
        "tailored": QUESTIONS - 1, "self-instruct": QUESTIONS,
    }  # fmt: skip
    assert "Of 120 questions count 119 for tailored: " in measure.note
    (difference,) = differences(measure, MARKER)
    assert difference["items"] == QUESTIONS - 1


def test_two_students_are_compared_on_what_counts_for_both() -> None:
    """The judge reads the tailored student's answers to hard questions only: its mean is low, and it is no worse."""
    rows = grades("tailored", 0.5) + grades("self-instruct", 0.0)
    hard = set(np.argsort(LEVEL_R)[: QUESTIONS // 2])
    for n, row in enumerate(rows[:QUESTIONS]):
        row["grade"] = row["grade"] if n in hard else None
    measure = measured(rows)
    found = by_student(measure)
    assert found["self-instruct"]["best"] and found["self-instruct"]["value"] > found["tailored"]["value"] + 0.5
    (difference,) = differences(measure, MARKER)
    assert (difference["value"], difference["items"]) == (pytest.approx(0.5, abs=0.1), QUESTIONS // 2)
    assert difference["low"] > 0
    assert found["tailored"]["like_best"] is True and found["tailored"]["like_baseline"] is False


def test_students_without_a_question_in_common_cannot_be_told_apart() -> None:
    rows = grades("tailored", 3.0) + grades("self-instruct", 0.0)
    for n, row in enumerate(rows):
        row["grade"] = row["grade"] if (n % QUESTIONS < 60) == (n < QUESTIONS) else None
    measure = measured(rows)
    assert differences(measure, MARKER) == []
    assert by_student(measure)["tailored"]["like_baseline"] is True


def test_what_one_student_costs_does_not_add_up_over_students_and_seeds() -> None:
    """Of five students with three seeds each, every tenth verdict cannot be read."""
    random, names = np.random.default_rng(3), ["self-reward", "llm2llm", "tailored", "random", "other"]
    rows = [
        {**row, "student": name, "seed": seed, "verdict": row["verdict"] if random.random() < 0.9 else None}
        for name in names
        for seed in (1, 2, 3)
        for row in verdicts("any", [("student", "baseline") if n % 3 else ("student", "student") for n in range(200)])
    ]
    for measure in win_rates(rows, SETTINGS):
        assert all(measure.scores[name].items > 80 for name in names)  # 0.9 ** 6 of 200 are 106
        told = differences(measure, MARKER)
        assert len(told) == 15 and min(row["items"] for row in told) > 35  # and 0.9 ** 12 are 56


def test_a_student_that_could_never_be_read_is_named_and_costs_the_others_nothing() -> None:
    silent = [{**row, "student": "mute", "grade": None} for row in grades("tailored", 0.0)]
    measure = measured([*grades("tailored", 0.0), *silent])
    assert set(measure.scores) == {"tailored"} and "mute is in no cell" in measure.note


def test_replicas_are_averaged_and_their_spread_widens_the_interval() -> None:
    base = grades("self-instruct", 0.0)
    rows = [row for n, shift in enumerate((-0.4, 0.0, 0.4)) for row in grades("tailored", 0.5 + shift, seed=n)]
    (spread,) = differences(measured(rows + base), MARKER)
    (alone,) = differences(measured(grades("tailored", 0.5) + base), MARKER)
    assert spread["value"] == pytest.approx(0.5, abs=0.1)
    assert spread["high"] - spread["low"] > 2 * (alone["high"] - alone["low"])


def test_an_mtbench_question_counts_with_all_its_turns_or_not_at_all() -> None:
    turns = [("q1", 8.0), ("q1", 6.0), ("q2", 9.0), ("q2", None)]
    rows = [{"student": "a", "seed": None, "question_id": name, "grade": grade} for name, grade in turns]
    measure = mtbench(rows, SETTINGS)
    assert measure is not None
    assert measure.scores["a"].value == 7.0 and "Of 2 questions count 1 for a" in measure.note


def verdicts(student: str, outcomes: list[tuple[str | None, str | None]], *, hard: bool = False) -> Rows:
    """Verdicts of both orders, a question each."""
    return [
        {"student": student, "seed": None, "question_id": f"q{n}", "first": first, "verdict": verdict}
        | {"student_length": 100 + n % 7, "baseline_length": 100, "difficulty": n % 3 - 1.0 if hard else None}
        for n, pair in enumerate(outcomes)
        for first, verdict in zip(("student", "baseline"), pair, strict=True)
    ]


def test_a_comparison_is_the_mean_of_both_orders() -> None:
    rows = verdicts("a", [("student", "student"), ("student", "baseline"), ("tie", "student"), ("student", None)])
    assert [each["preference"] for each in preferences(rows)] == [1.0, 0.5, 0.75, None]


def test_a_verdict_that_cannot_be_read_is_no_loss() -> None:
    rows = verdicts("tailored", [("student", "student")] * 20 + [(None, "student")] * 20)
    plain = next(each for each in win_rates(rows, SETTINGS) if each.name == "winrate")
    assert plain.scores["tailored"].value == 100.0
    assert plain.scores["tailored"].items == 20
    assert "Of 40 questions count 20 for tailored" in plain.note


def test_the_published_difficulty_of_questions_is_used_where_they_bring_it() -> None:
    won = [("student", "student") if n % 3 else ("baseline", "baseline") for n in range(60)]
    found = [win_rates(verdicts("tailored", won, hard=hard), SETTINGS)[0] for hard in (True, False)]
    assert "without its term for difficulty" in found[1].note and "difficulty" not in found[0].note
    with_it, without = (each.scores["tailored"] for each in found)
    assert with_it.value == pytest.approx(without.value, abs=3)  # the same questions were won
    assert with_it.resampled.std() < without.resampled.std()  # and which ones is no longer chance


def test_the_baseline_has_half_by_construction() -> None:
    for measure in win_rates(verdicts("tailored", [("student", "baseline"), ("student", "student")] * 30), SETTINGS):
        assert measure.scores["self-instruct"].value == 50.0
        found = by_student(measure)["tailored"]
        assert found["like_baseline"] is False
        assert found["low"] < measure.scores["tailored"].value < found["high"]


@pytest.mark.parametrize(("wins", "apart"), [(5, False), (6, True), (12, True)])
def test_winning_every_time_tells_apart_from_six_questions_on(wins: int, apart: bool) -> None:
    for measure in win_rates(verdicts("tailored", [("student", "student")] * wins), SETTINGS):
        found = by_student(measure)
        assert found["tailored"]["value"] == found["tailored"]["high"] == 100.0 > found["tailored"]["low"]
        assert found["tailored"]["like_baseline"] is (not apart)
        assert found["self-instruct"]["like_best"] is (not apart)


def test_an_interval_of_a_share_is_one_of_shares() -> None:
    rows = [
        {"student": "tailored", "seed": seed, "question_id": f"q{n}", "value": float(n % 10 < right)}
        for seed, right in ((1, 2), (2, 9))
        for n in range(40)
    ]
    measure = means("any", "any", grid(rows, "question_id", "value"), SETTINGS, decimals=1, factor=100, within=(0, 1))
    assert measure is not None
    found = by_student(measure)["tailored"]
    assert (found["low"], found["value"], found["high"]) == (0, pytest.approx(55), 100)  # two seeds bound nothing


def test_where_no_question_has_all_verdicts_there_is_no_rate() -> None:
    assert win_rates(verdicts("tailored", [(None, None)] * 5), SETTINGS) == []
