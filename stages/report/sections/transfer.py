"""Further students on the same data: does what a teacher learnt for one student help others?"""

from __future__ import annotations

from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.charts import intervals
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table
from stages.report.sections import tasks
from stages.report.sections.students import towards
from stages.report.words import NONE, fixed, percent, signed

TITLE = "Other students on the same data"
_BASE = "base"
_PREFIX = "transfer."


def section(nodes: Nodes, branches: Branches) -> Section | None:
    """None where a recipe names no further student. Each is compared with itself on other data, never with another."""
    found = {node.name.removeprefix(_PREFIX): node for node in nodes if node.name.startswith(_PREFIX)}
    if not found:
        return None
    if all(node.stage == "accuracy" for node in found.values()):
        return _of_tasks(found, branches)
    own = nodes.own_evaluation()
    every = {"the recipe's own": own, **found} if own else dict(found)
    others = [name for name in _branches(every) if name not in (branches.main, _BASE)]
    against = [*others, _BASE]
    differences = [
        {"student": student, **each}
        for student, node in every.items()
        for each in (towards(branches.main, each) for each in node.figures["differences"])
        if each["first"] == branches.main and each["second"] in against
    ]
    drawn = [each for each in differences if each["second"] == (branches.baseline or _BASE)]
    blocks: list[Figure | Table] = []
    if drawn:
        label = f"{branches.main} − {drawn[0]['second']}, loss in nats per token"
        rows = [(each["student"], _interval(each), branches.colour(branches.main)) for each in drawn]
        drawing = intervals(rows, x_label=label, title="What the data do for each student", zero=True)
        caption = f"Left of the dashed line the {branches.main} data are better for that student."
        blocks.append(Figure("transfer", drawing, caption))
    head = [_BASE, branches.main, *others]
    blocks.append(
        Table(
            "Held-out loss of each student by the data that it was trained on",
            ["student", *("untrained" if each == _BASE else each for each in head)],
            [[student, *(_loss(node, each) for each in head)] for student, node in every.items()],
            numeric=range(1, len(head) + 1),
        )
    )
    text = [
        "The teacher was trained for the recipe's own student; the others were trained on the same rows. Losses of "
        "different students are not comparable, differences within one are.",
        *(_said(branches.main, each) for each in differences if each["student"] in found),
    ]
    losses = {student: node.figures["students"] for student, node in found.items()}
    return Section("transfer", TITLE, text, blocks, {"students": losses, "differences": differences})


def _of_tasks(found: dict[str, Node], branches: Branches) -> Section:
    """The same for students of tasks, by their right answers."""
    rows = {
        (student, each["shots"], each["student"]): each
        for student, node in found.items()
        for each in node.figures["students"]
    }
    names = list(dict.fromkeys(name for _, _, name in rows))
    cells = [
        [student, str(shots), *(_right(rows.get((student, shots, name))) for name in names)]
        for student, shots in dict.fromkeys((student, shots) for student, shots, _ in rows)
    ]
    title = "Right answers of each student by the data that it was trained on"
    table = Table(title, ["student", "examples", *names], cells, numeric=range(1, len(names) + 2))
    differences = [
        {"student": student, **tasks.towards(branches.main, each)}
        for student, node in found.items()
        for each in node.figures["differences"]
    ]
    text = [
        "The teacher was trained for the recipe's own student; the others were trained on the same rows.",
        *(f"{each['student']}: {tasks.said(each)}" for each in differences if each["first"] == branches.main),
    ]
    students = {student: node.figures["students"] for student, node in found.items()}
    return Section("transfer", TITLE, text, [table], {"students": students, "differences": differences})


def _right(row: dict[str, Any] | None) -> str:
    return f"{percent(row['accuracy'])} ({percent(row['low'])} … {percent(row['high'])})" if row else NONE


def _branches(every: dict[str, Node]) -> list[str]:
    """Students' data, in order, that every one of them was trained on."""
    sets = [node.figures["students"] for node in every.values()]
    return [name for name in sets[0] if all(name in each for each in sets)]


def _loss(node: Node, branch: str) -> str:
    each = node.figures["students"].get(branch)
    return f"{fixed(each['value'], 4)} ({fixed(each['low'], 4)} … {fixed(each['high'], 4)})" if each else NONE


def _interval(each: dict[str, Any]) -> Interval:
    return Interval(each["value"], each["low"], each["high"])


def _said(main: str, each: dict[str, Any]) -> str:
    interval = _interval(each)
    than = "its untrained self" if each["second"] == _BASE else f"itself on the {each['second']} data"
    told = f"{signed(interval.value)} ({signed(interval.low)} to {signed(interval.high)})"
    if interval.includes_zero:
        return f"{each['student']} on the {main} data cannot be told from {than}: {told}."
    return f"{each['student']} on the {main} data is {'better' if interval.value < 0 else 'worse'} than {than}: {told}."
