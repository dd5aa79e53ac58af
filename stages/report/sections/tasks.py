"""ARTE: the preference set, what candidates scored with it, and the students' accuracy on the tasks' test questions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.charts import histogram, intervals, scatter
from stages.report.nodes import Node, Nodes, Row
from stages.report.section import Figure, Section, Table
from stages.report.statistics import Scores, mean
from stages.report.words import NONE, count, percent, plural, signed

TITLE = "The tasks"
_LEVELS = ("all", "category", "task")


def section(nodes: Nodes, branches: Branches) -> Section | None:
    """None for a run without tasks."""
    measured = nodes.get("accuracy")
    if measured is None:
        return None
    figures = measured.figures
    rows = measured.rows("levels")
    differences = [towards(branches.main, each) for each in figures["differences"]]
    text = [
        f"Exact match on test questions that nothing was trained on; intervals of {100 * figures['confidence']:g} % by "
        "resampling each task's questions, the same ones for every student. A category is the mean of its tasks.",
        *(said(each) for each in differences if branches.main in (each["first"], each["second"])),
    ]
    blocks: list[Figure | Table] = [_accuracies(rows, branches), _table(rows)]
    chosen = nodes.latest("irt")
    if chosen is not None:
        blocks.append(_preference(chosen))
        text += one_answer(chosen)
        text += unfitted(chosen)
    text += [told for node in nodes.of_stage("select") for told in few_questions(node)]
    paired = nodes.of_stage("preferences")
    if paired:
        blocks.append(_pairs(paired))
        text += [told for node in paired for told in without_pairs(node)]
    scored = nodes.of_stage("incontext")
    if scored:
        blocks += _scores(scored, branches)
        text += _unscored(scored)
    numbers = {"students": figures["students"], "differences": differences}
    return Section("tasks", TITLE, text, blocks, numbers)


def _accuracies(rows: list[Row], branches: Branches) -> Figure:
    overall = [row for row in rows if row["level"] == "all"]
    drawing = intervals(
        [
            (
                f"{row['student']}, {plural(row['shots'], 'example')}",
                Interval(*(100 * row[name] for name in ("accuracy", "low", "high"))),
                branches.colour(row["student"]),
            )
            for row in sorted(overall, key=lambda row: (row["shots"], row["student"] != "base", row["student"]))
        ],
        x_label="right answers (%)",
        title="Accuracy of each student over all tasks",
    )
    caption = "Mean over tasks. Whether two students differ is judged question by question, in the text above."
    return Figure("accuracy", drawing, caption)


def _table(rows: list[Row]) -> Table:
    columns = sorted({(row["shots"], row["student"]) for row in rows}, key=lambda each: (each[0], each[1] != "base"))
    cells = {(row["level"], row["name"], row["shots"], row["student"]): row for row in rows}
    names = sorted({(_LEVELS.index(row["level"]), row["name"]) for row in rows})
    return Table(
        "Right answers by task and category (in parentheses: answers that could not be read, of all training seeds)",
        ["", *(f"{student}, {shots}-shot" for shots, student in columns)],
        [
            [name, *(_cell(cells.get((_LEVELS[level], name, shots, student))) for shots, student in columns)]
            for level, name in names
        ],
        numeric=range(1, len(columns) + 1),
    )


def _cell(row: Row | None) -> str:
    if row is None:
        return NONE
    unread = f" ({row['unparsed']})" if row["unparsed"] else ""
    return f"{percent(row['accuracy'])}{unread}"


def _preference(node: Node) -> Table:
    size = node.figures["size"]
    return Table(
        f"Preference set: the most discriminative validation questions, {size} asked for",
        ["task", "questions", "persons", "chosen", "of these fillers", "all right", "all wrong", "unread answers"],
        [
            [
                task,
                *(
                    count(each[name])
                    for name in ("questions", "persons", "chosen", "fillers", "all_right", "all_wrong")
                ),
                f"{each['unparsed']} of {each['answers']}",
            ]
            for task, each in sorted(node.figures["tasks"].items())
        ],
        numeric=range(1, 8),
    )


def one_answer(chosen: Node) -> list[str]:
    """Preference sets that a student answers rightly by always saying the same."""
    only = {task: each["one_answer"] for task, each in sorted(chosen.figures["tasks"].items())}
    return [
        f"Every preference question of {task} has the answer {answer!r}: what its candidates score is how well "
        "they bring the student to say that, and nothing else."
        for task, answer in only.items()
        if answer is not None
    ]


def unfitted(chosen: Node) -> list[str]:
    """Tasks whose item responses found no best estimates."""
    tasks = [task for task, each in sorted(chosen.figures["tasks"].items()) if not each["converged"]]
    if not tasks:
        return []
    return [
        f"The fit of item responses did not converge for {', '.join(tasks)}: which of these questions tell students "
        "apart best is uncertain."
    ]


def few_questions(selected: Node) -> list[str]:
    """Tasks that fewer new questions were drafted for than asked."""
    short = [
        f"{task} ({missing} short of {missing + selected.figures['tasks'][task]})"
        for task, missing in sorted(selected.figures["short"].items())
    ]
    return [f"{selected.name}: fewer new questions than asked for: {', '.join(short)}."] if short else []


def _pairs(paired: list[Node]) -> Table:
    """What the teacher was trained on, by task."""
    tasks = sorted({task for node in paired for task in node.figures["tasks"]})
    kinds = ("question", "rationale")
    return Table(
        "Pairs by task",
        ["", *(f"{node.name.removesuffix('.preferences')}, {kind} pairs" for node in paired for kind in kinds)],
        [
            [task, *(count(node.figures["tasks"].get(task, {}).get(kind, 0)) for node in paired for kind in kinds)]
            for task in tasks
        ],
        numeric=range(1, 1 + 2 * len(paired)),
    )


def without_pairs(paired: Node) -> list[str]:
    """Tasks that taught the teacher nothing, and why pairs were left out."""
    none = [task for task, kinds in sorted(paired.figures["tasks"].items()) if not any(kinds.values())]
    told = [f"{paired.name}: no pair at all of {', '.join(none)}, so the teacher learnt nothing of it."] if none else []
    left_out = ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in paired.figures["without"].items())
    return [*told, f"{paired.name}: without a pair: {left_out}."] if left_out else told


def _scores(scored: list[Node], branches: Branches) -> list[Figure | Table]:
    """How candidates score, and whether longer rationales do better."""
    by_node = {node.name: [row for row in node.rows() if row["score"] is not None] for node in scored}
    kept = {name: rows for name, rows in by_node.items() if len(rows) > 1}
    if not kept:
        return []
    series = {name: [row["score"] for row in rows] for name, rows in kept.items()}
    colours = {name: branches.colour(name.partition(".")[0]) for name in kept}
    # A question's rationales are not independent.
    means = {
        name: mean(Scores(series[name], [row["instruction_id"] for row in rows], 0, 0, 0))
        for name, rows in kept.items()
    }
    title = "In-context scores"
    first = next(iter(kept.values()))
    return [
        Figure(
            "incontext",
            histogram(series, means, colours, x_label="share of preference questions answered rightly", title=title),
            "Each row is one candidate, given to the student as its one example. Dots are means, bars through them "
            "95 % intervals (questions resampled).",
        ),
        Figure(
            "incontext-length",
            scatter(
                [row["characters"] for row in first],
                [row["score"] for row in first],
                x_label="characters of the rationale",
                y_label="in-context score",
                title="Score by length of the rationale",
            ),
            "Whether the signal is more than a wish for long or short rationales.",
        ),
    ]


def _unscored(scored: list[Node]) -> list[str]:
    told = []
    for node in scored:
        reasons = Counter(row["reason"] for row in node.rows(columns=("reason",)) if row["reason"])
        if reasons:
            listed = ", ".join(f"{number} {why}" for why, number in reasons.most_common())
            told.append(f"{node.name}: candidates without a score: {listed}. They are in no pair.")
    return told


def towards(main: str, each: dict[str, Any]) -> dict[str, Any]:
    """A difference with the main student first: above zero it is better."""
    if each["second"] != main:
        return each
    swapped = {"value": -each["value"], "low": -each["high"], "high": -each["low"]}
    return {**each, "first": each["second"], "second": each["first"], **swapped}


def said(each: dict[str, Any]) -> str:
    points = [signed(100 * each[name]) for name in ("value", "low", "high")]
    if each["low"] <= 0 <= each["high"]:
        end = "the interval includes 0, so the two cannot be told apart"
    else:
        end = f"{each['first'] if each['value'] > 0 else each['second']} is better"
    told = f"{points[0]} points ({points[1]} to {points[2]}); {end}."
    return f"{each['first']} against {each['second']} after {plural(each['shots'], 'example')}: {told}"
