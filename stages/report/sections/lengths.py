"""Do long responses (or rationales) score higher? Scores by the length of what was scored."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from stages.evaluate.bootstrap import Interval
from stages.report.draw.points import Point, Series, points
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.statistics import Scores, mean
from stages.report.words import NONE, common_exponent, count, fixed, unit

TITLE = "Scores by length"
SIGNALS = ("influence", "incontext", "judge", "loss")
_BINS = 5
_LEAST = 40  # scored rows under which bins say nothing


def section(nodes: Nodes) -> Section:
    found = [(node, _scored(nodes, node)) for stage in SIGNALS for node in nodes.of_stage(stage)]
    shown = [(node, rows) for node, rows in found if len(rows) >= _LEAST]
    if not shown:
        return left_out("lengths", TITLE, f"This run scored fewer than {_LEAST} rows: too few to group by length.")
    blocks: list[Figure | Table] = []
    table_rows: list[list[str]] = []
    numbers: dict[str, Any] = {}
    for node, rows in shown:
        groups = _groups(rows)
        exponent = common_exponent([each for _, mean, _ in groups for each in (mean.low, mean.high)])
        for words, average, size in groups:
            low, value, high = (fixed(each / 10.0**exponent, 3) for each in (average.low, average.value, average.high))
            table_rows.append([node.name + unit(exponent), f"{words:.0f}", count(size), value, f"{low} … {high}"])
        correlation = _spearman(rows)
        numbers[node.name] = {
            "spearman": correlation,
            "groups": [{"words": words, "mean": asdict(each), "rows": size} for words, each, size in groups],
        }
    by_stage: dict[str, list[tuple[Node, list[tuple[int, float, str]]]]] = {}
    for node, rows in shown:
        by_stage.setdefault(node.stage, []).append((node, rows))
    for stage, several in by_stage.items():
        series = [
            Series(node.branch or node.name, [Point(words, each) for words, each, _ in _groups(rows)], colour)
            for (node, rows), colour in zip(several[-4:], "abcd", strict=False)
        ]
        drawing = points(
            series, x_label="words of the response", y_label=f"mean {stage}", title=f"{stage} by length of the response"
        )
        caption = "Fifths of the rows by length, at their median length; intervals of 95 % by resampling prompts."
        blocks.append(Figure(f"lengths-{stage}", drawing, caption))
    blocks.append(
        Table(
            "Scores by fifths of length",
            ["scores", "median words", "rows", "mean", "95 % interval"],
            table_rows,
            numeric=(1, 2, 3, 4),
        )
    )
    said = "; ".join(
        f"{name} {NONE if each['spearman'] is None else fixed(each['spearman'], 2)}" for name, each in numbers.items()
    )
    return Section("lengths", TITLE, [f"Spearman correlation of score and length: {said}."], blocks, numbers)


def _scored(nodes: Nodes, node: Node) -> list[tuple[int, float, str]]:
    """(words, score, prompt) of every scored row."""
    source = nodes.source(node.name, "rows")
    if source is None:
        return []
    words = {
        row["response_id"]: len(row["response"].split()) for row in source.rows(columns=("response_id", "response"))
    }
    return [
        (words[row["response_id"]], float(row["score"]), str(row["prompt_id"]))
        for row in node.rows(columns=("response_id", "prompt_id", "score"))
        if row["score"] is not None and row["response_id"] in words
    ]


def _groups(rows: list[tuple[int, float, str]]) -> list[tuple[float, Interval, int]]:
    """(median words, mean score, rows) of each fifth by length; rows of one length stay together."""
    lengths = np.array([words for words, _, _ in rows])
    edges = np.unique(np.percentile(lengths, np.linspace(0, 100, _BINS + 1)[1:-1]))
    place = np.searchsorted(edges, lengths, side="left")
    groups = []
    for index in range(len(edges) + 1):
        chosen = [row for row, at in zip(rows, place, strict=True) if at == index]
        if len(chosen) > 1:
            scores = Scores([score for _, score, _ in chosen], [prompt for _, _, prompt in chosen], 0, 0, 0)
            groups.append((float(np.median([words for words, _, _ in chosen])), mean(scores), len(chosen)))
    return groups


def _spearman(rows: list[tuple[int, float, str]]) -> float | None:
    """Rank correlation of length and score; None where one of them does not vary."""
    words, scores = [words for words, _, _ in rows], [score for _, score, _ in rows]
    if len(set(words)) == 1 or len(set(scores)) == 1:
        return None
    return float(stats.spearmanr(words, scores).statistic)
