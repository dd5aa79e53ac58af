"""What the report says of texts without a model, and of scores by length."""

from __future__ import annotations

import re

import numpy as np
import pytest

from stages.evaluate.bootstrap import Interval
from stages.report.draw.points import Box, Point, Series, boxes, points
from stages.report.sections.lengths import _groups, _spearman
from stages.report.topics import distinct, opening, openings


@pytest.mark.parametrize(
    ("instruction", "word"), [("Write a poem.", "write"), ("  1. List birds", "list"), ("¿?", ""), ("", "")]
)
def test_an_instruction_begins_with_its_first_word(instruction: str, word: str) -> None:
    assert opening(instruction) == word


def test_instructions_without_a_word_are_not_counted() -> None:
    assert openings(["Write it.", "Write on.", "42"]) == {"write": 2}


def test_words_of_a_new_topic_stand_out_and_common_ones_do_not() -> None:
    before = [f"Write a story about the river, number {n}." for n in range(30)]
    after = [f"Write a proof about the triangle, number {n}." for n in range(30)]
    found = {each.word: each.z for each in distinct(before, after, 5)}
    assert found["proof"] > 2 and found["triangle"] > 2
    assert found["story"] < -2 and found["river"] < -2
    assert abs(found.get("number", 0.0)) < 0.5 and "about" not in found


def test_a_word_counts_once_a_text() -> None:
    loud = distinct(["A cat sat."] * 20, ["A cat sat."] * 19 + ["dog dog dog dog dog dog"], 3)
    assert next(each for each in loud if each.word == "dog").after == 1


def test_nothing_is_distinct_without_words() -> None:
    assert distinct([], ["Write."], 5) == [] and distinct(["1 2"], ["3"], 5) == []


def scored(slope: float) -> list[tuple[int, float, str]]:
    random = np.random.default_rng(0)
    return [(n % 50 + 1, slope * (n % 50) + random.normal(0, 0.5), f"p{n % 20}") for n in range(200)]


def test_scores_that_grow_with_length_show_it() -> None:
    groups = _groups(scored(0.1))
    means = [each.value for _, each, _ in groups]
    assert len(groups) == 5 and sum(size for _, _, size in groups) == 200
    assert means == sorted(means) and groups[0][1].high < groups[-1][1].low
    rank = _spearman(scored(0.1))
    assert rank is not None and rank > 0.9


def test_rows_of_one_length_are_one_group_without_a_correlation() -> None:
    rows = [(7, float(n), f"p{n}") for n in range(50)]
    assert len(_groups(rows)) == 1
    assert _spearman(rows) is None


def test_charts_of_estimates_survive_a_single_point_and_equal_values() -> None:
    flat = Interval(1.0, 1.0, 1.0)
    drawn = [
        points([Series("a", [Point(3, flat)])], x_label="x", y_label="y", title="t"),
        boxes([Box("a", [1.0, 1.0], flat)], x_label="x", title="t"),
    ]
    for each in drawn:
        assert "nan" not in each.body and "inf" not in each.body
        numbers = [float(found) for found in re.findall(r'c[xy]="([-\d.]+)"', each.body)]
        assert all(0 <= number <= max(each.width, each.height) for number in numbers)
