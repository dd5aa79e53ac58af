"""The report's parts by themselves: words for numbers, ticks, statistics, the loop's layout, the verdict."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from stages.report.draw.axes import nice_ticks, tick_label
from stages.report.draw.charts import Line, histogram, lines, scatter
from stages.report.draw.loop import BOX, LoopNode, draw_loop, reduced
from stages.report.draw.svg import Svg
from stages.report.statistics import Scores, difference, mean
from stages.report.verdict import verdict
from stages.report.words import common_exponent, number, percent, seconds, signed, size


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1234.4, "1,234"),
        (0.0123, "0.0123"),
        (-0.00103, "−1.03·10⁻³"),
        (4.5678e-5, "4.57·10⁻⁵"),
        (0, "0"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, words: str) -> None:
    assert number(value) == words


def test_units_are_written_for_people() -> None:
    assert [seconds(each) for each in (0.42, 62.4, 245, 7800)] == ["0.4 s", "62 s", "4 min 05 s", "2 h 10 min"]
    assert [percent(each) for each in (0, 0.006, 0.5, 0.996, 1)] == ["0 %", "0.6 %", "50 %", "99.6 %", "100 %"]
    assert [size(each) for each in (0, 5 << 20, 3 << 30)] == ["–", "5 MiB", "3.0 GiB"]
    assert signed(0.5) == "+0.500" and common_exponent([4e-4, -8e-5]) == -6 and common_exponent([0.4]) == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.4, 2.8), (4.11, 5.13), (-1e-4, 3e-4), (17, 1e6)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 8 and low <= ticks[0] and ticks[-1] <= high
    labels = [tick_label(tick, ticks) for tick in ticks]
    assert len(set(labels)) == len(labels)


SHIFT, PROMPTS, EACH = 3e-4, 60, 4


def scores(shift: float, *, prompt_from: int = 0, seed: int = 0) -> Scores:
    """Scores that differ far more between prompts than the shift."""
    level_P = np.random.default_rng(7).normal(0, 2e-3, 2 * PROMPTS)
    random = np.random.default_rng(seed)
    rows = [
        {"prompt_id": f"p{p}", "score": level_P[p] + shift + random.normal(0, 3e-4), "tie": False}
        for p in range(prompt_from, prompt_from + PROMPTS)
        for _ in range(EACH)
    ]
    return Scores.of(rows)


def test_a_small_shift_shows_only_where_prompts_are_paired() -> None:
    paired = difference(scores(0, seed=1), scores(SHIFT, seed=2))
    assert paired.prompts == PROMPTS
    assert 0 < paired.interval.low < SHIFT < paired.interval.high
    apart = difference(scores(0, seed=1), scores(SHIFT, prompt_from=PROMPTS, seed=2))
    assert apart.prompts is None
    assert apart.interval.includes_zero


def test_candidates_of_one_prompt_do_not_count_as_independent() -> None:
    found = mean(scores(0))
    values = scores(0).values
    naive = 1.96 * float(np.std(values)) / np.sqrt(len(values))
    assert (found.high - found.low) / 2 > 1.5 * naive


def test_ties_and_rows_without_score_are_neither_helpful_nor_harmful() -> None:
    rows = [
        {"prompt_id": "p", "score": score, "tie": tie}
        for score, tie in ((1.0, False), (1e-9, True), (-1.0, False), (None, False))
    ]
    found = Scores.of(rows)
    assert (found.helpful, found.harmful, found.ties, len(found.values)) == (1, 1, 1, 3)


EDGES = [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("b", "e")]


def test_edges_that_a_longer_path_implies_are_left_out() -> None:
    assert reduced(EDGES) == [("a", "b"), ("b", "c"), ("c", "d"), ("b", "e")]


LANES = {"start": "", "it1.a": "it1", "it1.b": "it1", "x.a": "x", "x.b": "x", "y.a": "y", "y.b": "y", "end": ""}
LOOP = [
    ("start", "it1.a"), ("it1.a", "it1.b"), ("it1.b", "x.a"), ("x.a", "x.b"), ("start", "y.a"), ("y.a", "y.b"),
    ("x.b", "end"), ("y.b", "end"), ("it1.a", "y.b"),
]  # fmt: skip


@pytest.mark.parametrize("across", [True, False])
def test_no_node_lies_on_another_and_all_are_inside_the_picture(across: bool) -> None:
    nodes = [LoopNode(name, lane, name, ["1 s"], 0.5) for name, lane in LANES.items()]
    drawing = draw_loop(nodes, LOOP, across=across, title="loop")
    boxes = corners(drawing)
    assert len(boxes) == len(nodes)
    for index, (x, y) in enumerate(boxes):
        assert x >= 0 and x + BOX[0] <= drawing.width and y >= 0 and y + BOX[1] <= drawing.height
        assert all(abs(x - u) >= BOX[0] or abs(y - v) >= BOX[1] for u, v in boxes[:index])
    assert drawing.body.count('class="edge"') == len(LOOP)


def corners(drawing: Svg) -> list[tuple[float, float]]:
    found = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*class="box"', drawing.body)
    return [(float(x), float(y)) for x, y in found]


def test_charts_survive_data_without_variation() -> None:
    single = {"a": [1.0, 1.0, 1.0]}
    interval = mean(Scores([1.0, 1.0], ["p", "q"], 2, 0, 0))
    drawn = [
        histogram(single, {"a": interval}, {"a": "a"}, x_label="x", title="t"),
        scatter([0.0], [0.0], x_label="x", y_label="y", title="t"),
        lines([Line("a", [(1, 2.0)])], x_label="x", y_label="y", title="t"),
    ]
    assert all("nan" not in each.body and "inf" not in each.body for each in drawn)


def students(value: float, half: float) -> dict[str, Any]:
    each = {"first": "tailored", "second": "self-instruct", "value": value, "low": value - half, "high": value + half}
    return {"students": {"differences": [each]}}


def test_the_verdict_begins_with_test_seeds_where_a_recipe_keeps_them() -> None:
    numbers = {**students(-0.2, 0.1), "filtered": {"seeds_in_reference": {"probe": 1, "heldout": 3}}}
    first, second = verdict(numbers, "tailored", "self-instruct")
    assert first.tone == "bad" and "3 held-out rows as seeds, on purpose (prepare.overlap: keep)" in first.text
    assert second.tone == "good"
    none = {"filtered": {"seeds_in_reference": {"probe": 2, "heldout": 0}}}
    assert "on purpose" not in verdict(none, "tailored", "self-instruct")[0].text


@pytest.mark.parametrize(
    ("value", "half", "tone", "words"),
    [
        (-0.03, 0.01, "good", "is better than one trained on the self-instruct data, by 0.0300 nats"),
        (0.03, 0.01, "bad", "is worse than one trained on the self-instruct data"),
        (-0.03, 0.04, "open", "the interval includes 0"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(value: float, half: float, tone: str, words: str) -> None:
    (finding,) = verdict(students(value, half), "tailored", "self-instruct")
    assert finding.tone == tone and words in finding.text


@pytest.mark.parametrize(
    ("reliability", "words"), [(0.3, "more of their spread is chance"), (None, "is unknown: all are equal.")]
)
def test_weak_reliability_is_said_aloud(reliability: float | None, words: str) -> None:
    numbers = {"within_prompt": reliability, "unknown": None if reliability else "all are equal"}
    (finding,) = verdict({"reliability": numbers}, "tailored", "self-instruct")
    assert finding.tone == "open" and words in finding.text
