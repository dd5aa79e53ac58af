"""Influence of the data before and after the teacher's update."""

from __future__ import annotations

import re
from dataclasses import asdict
from itertools import combinations
from statistics import median, pstdev
from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.charts import histogram, stacked
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.statistics import Difference, Scores, difference, mean
from stages.report.words import common_exponent, count, fixed, percent, plural, signed, unit

TITLE = "Influence before and after"
_COLUMNS = ("prompt_id", "score", "tie")
_ROUND = re.compile(r"it\d+\.")


def section(nodes: Nodes, branches: Branches) -> Section:
    scored = {node.name: Scores.of(node.rows(columns=_COLUMNS)) for node in nodes.of_stage("influence")}
    scored = {name: scores for name, scores in scored.items() if scores.values}
    if not scored:
        return left_out("influence", TITLE, "This run measured no influence.")
    after = next((name for name in scored if name == f"{branches.main}.influence"), None)
    # The first candidates are the unmodified teacher's too, on the prompts that pairs came from.
    first = (f"{branches.unmodified}.influence", "it1.influence")
    before = next((name for name in first if name in scored and name != after), None)
    means = {name: mean(scores) for name, scores in scored.items()}
    shown = [name for name in (before, after) if name is not None] or list(scored)[:1]
    figure = Figure(
        "influence",
        histogram(
            {_short(name): scored[name].values for name in shown},
            {_short(name): means[name] for name in shown},
            {_short(name): branches.colour(_short(name)) for name in shown},
            x_label="influence of a row: what one step on it takes off the reference loss",
            title="Distribution of influence scores",
        ),
        "To the right of the dashed line a row helps. Dots are means, bars "
        "through them 95 % intervals (prompts resampled). The last bars hold the outermost half per cent.",
    )
    shares = Figure(
        "helpful",
        stacked(
            [(_short(name), _shares(scores)) for name, scores in scored.items()],
            title="Share of rows that help, harm, or are within their noise",
            colours=("d", "b", "a"),
        ),
        "A tie is a score within twice its noise of 0: what rounding does, and what its method misses of exact ones.",
    )
    exponent = common_exponent([each for mean in means.values() for each in (mean.low, mean.high)])
    table = Table(
        f"Scores by data set{unit(exponent)}",
        ["data", "rows", "mean influence", "95 % interval", "median", "st. dev.", "helpful", "harmful", "ties"],
        [_row(name, scored[name], means[name], exponent) for name in scored],
        numeric=range(1, 9),
    )
    numbers: dict[str, Any] = {
        "data": {name: _numbers(scored[name], means[name]) for name in scored},
        "before": before,
        "after": after,
    }
    text = [_meaning(nodes.get(shown[-1]))]
    if before and after:
        probed = nodes.get(before), nodes.get(after)
        assert probed[0] is not None and probed[1] is not None
        same = _same_probe(probed[0], probed[1])
        moved = difference(scored[before], scored[after])
        numbers["difference"] = {**asdict(moved.interval), "paired_prompts": moved.prompts, "same_probe": same}
        text.append(_moved(before, after, moved, same))
    else:
        text.append(
            "Not both the unmodified and the trained teacher's data have scores, so there is no before and after."
        )
    blocks: list[Figure | Table] = [figure, shares, table]
    apart = _differences(scored, branches)
    if apart:
        blocks.append(_apart(apart))
        numbers["differences"] = [
            {"first": _short(first), "second": _short(second), **asdict(each.interval), "paired_prompts": each.prompts}
            for first, second, each in apart
        ]
    return Section("influence", TITLE, text, blocks, numbers)


def _differences(scored: dict[str, Scores], branches: Branches) -> list[tuple[str, str, Difference]]:
    """The final data of every two branches, the first minus the second; the main branch first."""
    final = [name for name in scored if not _ROUND.match(name) and name.count(".") == 1]
    final.sort(key=lambda name: name != f"{branches.main}.influence")
    return [(first, second, difference(scored[second], scored[first])) for first, second in combinations(final, 2)]


def _apart(found: list[tuple[str, str, Difference]]) -> Table:
    exponent = common_exponent([each for _, _, moved in found for each in (moved.interval.low, moved.interval.high)])

    def row(first: str, second: str, moved: Difference) -> list[str]:
        low, value, high = (
            fixed(each / 10.0**exponent, 3) for each in (moved.interval.low, moved.interval.value, moved.interval.high)
        )
        return [f"{_short(first)} − {_short(second)}", value, f"{low} … {high}", count(moved.prompts or 0)]

    title = f"Differences of mean influence between final data{unit(exponent)}; 0 prompts: not paired"
    return Table(
        title, ["data", "difference", "95 % interval", "shared prompts"], [row(*each) for each in found], (1, 2, 3)
    )


def _short(name: str) -> str:
    return name.removesuffix(".influence")


def _shares(scores: Scores) -> dict[str, float]:
    rows = len(scores.values)
    return {"helpful": scores.helpful / rows, "harmful": scores.harmful / rows, "tie": scores.ties / rows}


def _row(name: str, scores: Scores, average: Interval, exponent: int) -> list[str]:
    def scaled(value: float) -> str:
        return fixed(value / 10.0**exponent, 3)

    shares = _shares(scores)
    return [
        _short(name),
        count(len(scores.values)),
        scaled(average.value),
        f"{scaled(average.low)} … {scaled(average.high)}",
        scaled(median(scores.values)),
        scaled(pstdev(scores.values)),
        percent(shares["helpful"]),
        percent(shares["harmful"]),
        count(scores.ties),
    ]


def _numbers(scores: Scores, average: Interval) -> dict[str, Any]:
    rows = len(scores.values)
    return {"rows": rows, "mean": asdict(average), "helpful": scores.helpful / rows, "ties": scores.ties}


def _same_probe(first: Node, second: Node) -> bool:
    """Whether two nodes measured with the same student checkpoint on the same reference rows."""
    return all(first.input_digest(each) == second.input_digest(each) for each in ("checkpoint", "reference"))


def _meaning(node: Node | None) -> str:
    """What a score is measured against is a setting, and decides what its sign says."""
    positive = (
        "Positive influence: after one optimiser step on the row, the student's loss on the probe rows is lower than"
    )
    if node is not None and node.manifest.settings.get("baseline") == "before_step":
        return f"{positive} before the step. Momentum's part of the step is in every score alike."
    return (
        f"{positive} after the same step without the row, on momentum alone. So a row can be good to learn from and "
        "still be below 0: ranks within a prompt say more than signs."
    )


def _moved(before: str, after: str, moved: Difference, same: bool) -> str:
    how = (
        f"paired over {plural(moved.prompts, 'prompt')} that both teachers were given"
        if moved.prompts
        else "not paired: the two data sets share too few prompts"
    )
    interval = moved.interval
    text = (
        f"From {_short(before)} to {_short(after)} the mean moves by {signed(interval.value)} "
        f"(95 % interval {signed(interval.low)} to {signed(interval.high)}, {how})."
    )
    if not same:
        text += " The two were measured with different student checkpoints or reference rows: compare with care."
    return text
