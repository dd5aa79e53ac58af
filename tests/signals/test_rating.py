"""What a judge writes, and what of it is a rating."""

from __future__ import annotations

import pytest

from stages.judge.rating import parse_rating


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("It is relevant and clear.\nScore: 4", 4),
        ("**Score:** 3", 3),
        ("**Score: 3**", 3),
        ("score = 2.5", 2.5),
        ("Score: 4/5", 4),
        ("Score: 4 / 5.", 4),
        ("Score: 4 out of 5 points", 4),
        ("Score: [0]", 0),
        ("Score: <5>", 5),
        ("The score is: 1.", 1),
        ("Score: 2\nOn reflection it deserves more.\nScore: 3", 3),  # the last one counts
        ("Score: 3,5", 3.5),
        ("4", 4),
        (" 4/5 ", 4),
        ("**5**", 5),
        ("3 points.", 3),
    ],
)
def test_a_rating_is_read(answer: str, rating: float) -> None:
    assert parse_rating(answer, 5) == (rating, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("A very good answer, I would say.", "no_score"),
        ("I count 3 strengths and 2 weaknesses.", "no_score"),
        ("3 strengths, no weaknesses", "no_score"),
        ("Score: <total points>", "no_score"),
        ("Score: five", "no_score"),
        ("The score improved by 4.", "no_score"),
        ("11/5", "out_of_range"),
        ("Score: 11/5", "out_of_range"),
        ("Score: 6", "out_of_range"),
        ("Score: -1", "out_of_range"),
        ("Score: 8/10", "other_scale"),
        ("80/100", "other_scale"),
        ("Score: 4-5", "range"),
        ("Score: 3 to 4", "range"),
        ("Score: 4 or 5", "range"),
    ],
)
def test_what_is_no_rating_has_a_reason_and_never_a_number(answer: str, reason: str) -> None:
    assert parse_rating(answer, 5) == (None, reason)


def test_another_scale_is_one_where_the_rubric_has_it() -> None:
    assert parse_rating("Score: 8/10", 10) == (8, None)
