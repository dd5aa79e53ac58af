"""All students by all measures, in one table."""

from __future__ import annotations

from typing import Any

from stages.report.amounts import said, unequal
from stages.report.compared import Compared
from stages.report.nodes import Nodes
from stages.report.section import Section, Table, left_out
from stages.report.words import NONE

TITLE = "The students compared"


def section(nodes: Nodes) -> Section:
    node = nodes.latest("comparison")
    if node is None:
        return left_out("comparison", TITLE, "This run compared no students.")
    compared = Compared.of(node, said(unequal(nodes)))
    table = Table(
        "Students by measure, with intervals",
        ["student", *(column.head for column in compared.columns)],
        [
            [student, *(cell.text if (cell := compared.cell(student, column)) else NONE for column in compared.columns)]
            for student in compared.students
        ],
    )
    notes = [f"{column.title}: {column.note}" for column in compared.columns if column.note]
    unread = _unread(node.figures["read"])
    text = [f"The same as HTML, CSV and LaTeX in tables/. {compared.legend}", *notes, *unread]
    return Section("comparison", TITLE, text, [table], {"cells": node.rows("cells"), "read": node.figures["read"]})


def _unread(read: dict[str, Any]) -> list[str]:
    """What of a judge's answers could not be read."""
    lines = []
    for name, each in read.items():
        if not each["columns"]:
            lines.append(f"{name}: no question counts for any student, so it has no column.")
        if each["reasons"]:
            reasons = ", ".join(f"{number} {why.replace('_', ' ')}" for why, number in each["reasons"].items())
            lines.append(f"{name}: of {each['rows']} judgements could not be used: {reasons}.")
    return lines
