"""The index against the definition: every text with every kept one, a plain table of longest common subsequences."""

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.dedup import brute_force, plain_lcs, synthetic
from stages.curate.rouge import Duplicate, RougeIndex, deduplicate
from stages.curate.words import words

SEEDS = synthetic(175, seed=2)
FEW_WORDS = st.lists(st.sampled_from(list("abcde")), max_size=9).map(" ".join)


def test_two_thousand_instructions_get_the_verdicts_of_the_double_loop() -> None:
    texts = synthetic(2_000, seed=1)
    expected = _double_loop(texts, SEEDS)
    dropped = [verdict for verdict in expected if verdict]
    assert 300 < len(dropped) < 1_700, "the data must exercise both decisions"
    assert any(verdict.score < 0.75 for verdict in dropped), "and come close to the threshold"
    assert deduplicate(texts, SEEDS) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(FEW_WORDS, max_size=12),
    st.lists(FEW_WORDS, max_size=4),
    st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.7, 0.9, 0.99]),
)
def test_texts_of_few_words_with_many_repeats_get_them_too(
    texts: list[str], against: list[str], threshold: float
) -> None:
    assert deduplicate(texts, against, threshold) == brute_force(texts, against, threshold)


def test_the_fast_double_loop_of_this_file_is_the_plain_one() -> None:
    texts = synthetic(120, seed=5)
    assert _double_loop(texts, SEEDS[:20]) == brute_force(texts, SEEDS[:20])


def test_an_f1_of_exactly_the_threshold_is_no_duplicate() -> None:
    ten = "a b c d e f g h i j"
    seven_in_order = "a b c d e f g x y z"
    eight_in_order = "a b c d e f g h y z"
    assert deduplicate([ten, seven_in_order]) == [None, None]
    assert deduplicate([ten, eight_in_order]) == [None, Duplicate("texts", 0, 0.8)]


def test_word_order_counts() -> None:
    assert deduplicate(["one two three four", "four three two one"]) == [None, None]


def test_the_nearest_text_is_named_and_the_first_of_equals() -> None:
    index = RougeIndex()
    index.add("write a short poem about the sea")
    index.add("write a short poem about the red sea")
    index.add("write a short poem about the red sea")
    assert index.nearest_over("Write a short poem about the red sea!") == (1, 1.0)
    assert index.nearest_over("please write a short poem about the red sea") == (1, 16 / 17)
    assert index.nearest_over("explain how tides work") is None


def test_a_dropped_text_drops_no_other() -> None:
    chain = ["a b c d e f g h", "a b c d e f x y", "a b c d w z x y"]
    assert deduplicate(chain) == [None, Duplicate("texts", 0, 0.75), None]


def test_positions_count_dropped_texts_and_tell_seeds_apart() -> None:
    verdicts = deduplicate(
        ["tell me a joke", "name three rivers in Asia", "name three rivers in Asia now", "tell me a joke"],
        against=["list some birds", "tell me a joke"],
    )
    assert verdicts == [
        Duplicate("against", 1, 1.0),
        None,
        Duplicate("texts", 1, 10 / 11),
        Duplicate("against", 1, 1.0),
    ]


def test_a_text_without_words_is_like_nothing_not_even_itself() -> None:
    assert deduplicate(["?!", "?!", "a word"], against=["..."]) == [None, None, None]


def test_near_duplicates_without_spaces_or_latin_letters_are_found() -> None:
    assert deduplicate(["写一个关于大海的短故事", "请写一个关于大海的短故事"])[1] is not None
    assert deduplicate(["Напиши короткий рассказ о море", "Напиши один короткий рассказ о море"])[1] is not None


def test_words_that_became_surrogates_are_told_apart() -> None:
    index = RougeIndex()
    for start in range(0, 60_000, 100):  # one code point a word: surrogates begin at 55,296
        index.add(" ".join(f"w{number}" for number in range(start, start + 100)))
    query = " ".join(f"w{number}" for number in range(55_310, 55_400))
    assert index.nearest_over(query) == (553, 2 * 90 / 190)
    assert index.nearest_over(" ".join(f"v{number}" for number in range(90))) is None


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, 70.0])
def test_a_threshold_that_is_no_f1_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        RougeIndex(threshold)


def _double_loop(texts: list[str], against: list[str]) -> list[Duplicate | None]:
    """brute_force with one table a text, against all kept ones at once."""
    vocabulary: dict[str, int] = {}
    coded = [[vocabulary.setdefault(w, len(vocabulary)) for w in words(text)] for text in [*against, *texts]]
    longest = max(map(len, coded))
    kept_KL = np.full((len(coded), longest), -1)
    lengths_K = np.zeros(len(coded), np.int64)
    origins: list[Duplicate] = []
    verdicts: list[Duplicate | None] = []
    for number, codes in enumerate(coded):
        position = number - len(against)
        if position >= 0:
            known = len(origins)
            scores_K = 2 * _lcs_with_each(codes, kept_KL[:known]) / (len(codes) + lengths_K[:known])
            best = int(np.argmax(scores_K))
            if scores_K[best] > 0.7:
                verdicts.append(Duplicate(origins[best].among, origins[best].position, float(scores_K[best])))
                continue
            verdicts.append(None)
        kept_KL[len(origins), : len(codes)] = codes
        lengths_K[len(origins)] = len(codes)
        origins.append(Duplicate("against", number, 0.0) if position < 0 else Duplicate("texts", position, 0.0))
    return verdicts


def _lcs_with_each(codes: list[int], others_KL: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """plain_lcs of one text with each of K others (padded with -1), its table's rows taken for all K together."""
    texts, longest = others_KL.shape
    above_LK = np.zeros((longest + 1, texts), np.int16)
    columns_LK = np.ascontiguousarray(others_KL.T)
    for code in codes:
        row_LK = np.zeros_like(above_LK)
        extended_LK = above_LK[:-1] + (columns_LK == code)
        np.maximum(extended_LK, above_LK[1:], out=row_LK[1:])
        above_LK = np.maximum.accumulate(row_LK, axis=0)
    return above_LK[-1].astype(np.int64)


def test_the_plain_table_knows_textbook_cases() -> None:
    source = random.Random(0)
    assert plain_lcs("abcbdab", "bdcaba") == 4
    assert plain_lcs("", "abc") == 0
    shuffled = source.sample(range(50), 50)
    assert plain_lcs(shuffled, shuffled) == 50
