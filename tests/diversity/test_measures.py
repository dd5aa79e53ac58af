"""Measures of diversity on texts whose values can be counted by hand, and overlap with evaluation rows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from stages.curate.rouge import RougeIndex
from stages.curate.words import words
from stages.diversity.contamination import Overlaps
from stages.diversity.measures import cluster_sizes, distinct, measure, rouge_matrix


def test_distinct_n_counts_n_grams() -> None:
    split = [words("a b a b"), words("a b c")]
    assert distinct(split, 1) == pytest.approx(3 / 7)
    assert distinct(split, 2) == pytest.approx(3 / 5)  # ab ba ab, ab bc
    assert distinct(split, 4) == 1
    assert distinct(split, 5) is None


def test_rouge_is_the_one_that_curate_drops_duplicates_by() -> None:
    dice = random.Random(0)
    texts = [" ".join(dice.choices("abcdef", k=dice.randint(3, 12))) for _ in range(40)]
    index = RougeIndex(0.01)
    index.add(texts[0])
    found = rouge_matrix([words(text) for text in texts])
    for number, text in enumerate(texts[1:], 1):
        match = index.nearest_over(text)
        assert found[number, 0] == pytest.approx(match[1] if match else 0.0, abs=0.01)


def test_texts_without_words_resemble_nothing() -> None:
    found = measure(["", "?!", "Name a bird."], 0.5)
    assert (found.self_rouge, found.clusters) == (0, 3)


def test_a_collapsed_teacher_is_told_from_a_varied_one() -> None:
    same = measure([f"Write a poem about the sea, number {number}." for number in range(50)], 0.5)
    dice = random.Random(1)
    varied = measure([" ".join(dice.choices([f"w{n}" for n in range(400)], k=8)) for _ in range(50)], 0.5)
    assert (same.clusters, same.largest_cluster) == (1, 1.0)
    assert varied.clusters > 45
    assert same.self_rouge is not None and varied.self_rouge is not None
    assert same.self_rouge > 0.8 > 0.4 > varied.self_rouge
    same_2, varied_2 = same.distinct[2], varied.distinct[2]
    assert same_2 is not None and varied_2 is not None and same_2 < 0.3 < varied_2


def test_a_text_joins_the_first_cluster_that_it_resembles() -> None:
    likeness = np.array([[1, 0.9, 0.2, 0.6], [0.9, 1, 0.3, 0.1], [0.2, 0.3, 1, 0.7], [0.6, 0.1, 0.7, 1]])
    assert cluster_sizes(likeness, 0.5) == [3, 1]
    assert cluster_sizes(likeness, 0.65) == [2, 2]


def test_one_text_has_no_nearest_other() -> None:
    assert measure(["Name a bird."], 0.5).self_rouge is None


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Tell me: why is the sky blue on a clear day in May?", "heldout"),
        ("WHY is the sky -- blue on a clear day", "heldout"),  # case and punctuation do not hide it
        ("Why is the sky blue on a cloudy day?", None),
        ("Please name five birds.", "short"),  # shorter than a run: all of it counts
        ("Name five fish.", None),
        ("Yes.", None),
    ],
)
def test_a_run_of_words_of_an_evaluation_row_is_found(text: str, where: str | None) -> None:
    sets = {
        "heldout": Overlaps(8, ["Why is the sky blue on a clear day?", None, ""]),
        "short": Overlaps(8, ["Please name five birds.", "Yes."]),
    }
    assert [name for name, overlaps in sets.items() if overlaps.find(text)] == ([where] if where else [])


def test_the_longest_run_is_told() -> None:
    overlaps = Overlaps(5, ["one two three four", "two three four five six"])
    assert overlaps.find("Say one two three four five six") == "two three four five six"
