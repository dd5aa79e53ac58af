"""The instructions and responses before and after the teacher's training: how long, and about what."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.charts import histogram
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.statistics import Scores, mean
from stages.report.topics import Distinct, distinct, openings
from stages.report.words import count, fixed, percent

TITLE = "The texts before and after"
_OPENINGS, _WORDS = 10, 10
Texts = dict[str, list[str]]


def section(nodes: Nodes, branches: Branches) -> Section:
    after = _written(nodes, branches.main)
    before = _written(nodes, branches.unmodified) or _written(nodes, "it1")
    if after is None or before is None or after is before:
        return left_out("texts", TITLE, "This run has data of one teacher only, so there is nothing to set it against.")
    sides = {each.branch: _texts(each) for each in (before, after)}
    if not all(texts["instruction"] for texts in sides.values()):
        return left_out("texts", TITLE, "One of the two teachers wrote nothing that can be used.")
    blocks: list[Figure | Table] = []
    lengths: dict[str, dict[str, Interval]] = {}
    for column in ("instruction", "response"):
        words = {name: [float(len(text.split())) for text in texts[column]] for name, texts in sides.items()}
        lengths[column] = {name: _mean(words[name], sides[name]["prompt"]) for name in sides}
        drawing = histogram(
            words,
            lengths[column],
            {name: branches.colour(name) for name in sides},
            x_label=f"words of the {column}",
            title=f"Length of {column}s",
        )
        blocks.append(Figure(f"texts-{column}", drawing, f"{column.capitalize()}s of both teachers, by words."))
    blocks += [_lengths(sides, lengths), _openings(sides)]
    written = [texts["instruction"] for texts in sides.values()]
    words_found = distinct(written[0], written[1], _WORDS)
    if words_found:
        blocks.append(_words(list(sides), words_found))
    numbers: dict[str, Any] = {
        "words": {column: {name: asdict(each) for name, each in found.items()} for column, found in lengths.items()},
        "distinct": [asdict(each) for each in words_found],
    }
    text = (
        f"{before.name} against {after.name}, usable rows. Topics are told by words alone: how an instruction begins, "
        "and which words more of one teacher's instructions hold."
    )
    return Section("texts", TITLE, [text], blocks, numbers)


def _written(nodes: Nodes, branch: str) -> Node | None:
    return nodes.get(f"{branch}.responses") or nodes.get(f"{branch}.rationales")


def _texts(node: Node) -> Texts:
    """The usable rows' instructions (each once) with their prompts, and responses."""
    rows = [row for row in node.rows(columns=("instruction", "response", "usable", "prompt_id")) if row["usable"]]
    return {
        "instruction": [row["instruction"] for row in rows],
        "response": [row["response"] for row in rows],
        "prompt": [str(row["prompt_id"]) for row in rows],
    }


def _mean(words: list[float], prompts: list[str]) -> Interval:
    return mean(Scores(words, prompts, 0, 0, 0))


def _lengths(sides: dict[str, Texts], lengths: dict[str, dict[str, Interval]]) -> Table:
    rows = []
    for column, found in lengths.items():
        for name, each in found.items():
            words = sorted(len(text.split()) for text in sides[name][column])
            interval = f"{fixed(each.low, 1)} … {fixed(each.high, 1)}"
            middle = f"{median(words):.0f}"
            rows.append([f"{name}, {column}", count(len(words)), fixed(each.value, 1), interval, middle])
    head = ["texts", "rows", "mean words", "95 % interval", "median"]
    return Table("Length in words", head, rows, numeric=(1, 2, 3, 4))


def _openings(sides: dict[str, Texts]) -> Table:
    counted = {name: openings(texts["instruction"]) for name, texts in sides.items()}
    totals = {name: max(1, each.total()) for name, each in counted.items()}
    every = sum(counted.values(), start=type(next(iter(counted.values())))())
    rows = [
        [word, *(percent(each[word] / totals[name]) for name, each in counted.items())]
        for word, _ in every.most_common(_OPENINGS)
    ]
    rows.append(["other words", *(percent(1 - _most(each, every) / totals[name]) for name, each in counted.items())])
    rows.append(["different words", *(count(len(each)) for each in counted.values())])
    return Table("How instructions begin", ["first word", *counted], rows, numeric=(1, 2))


def _most(counted: Any, every: Any) -> int:
    return sum(counted[word] for word, _ in every.most_common(_OPENINGS))


def _words(names: list[str], found: list[Distinct]) -> Table:
    rows = [[each.word, count(each.before), count(each.after), fixed(each.z, 1)] for each in found]
    caption = f"Words that tell {names[1]} (above 0) from {names[0]}, by instructions that hold them"
    return Table(caption, ["word", *names, "standard errors"], rows, numeric=(1, 2, 3))
