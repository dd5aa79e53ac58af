"""The comparison of all students as a table for people, for programs and for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.report.nodes import Node
from stages.report.page import render_table
from stages.report.words import fixed

BEST, LIKE_BEST, LIKE_BASELINE = "*", "†", "°"
_ARROWS = {"lower": "↓", "higher": "↑"}
_LATEX_MARKS = {LIKE_BEST: r"$^{\dagger}$", LIKE_BASELINE: r"$^{\circ}$"}
_LATEX = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "−": "$-$"})


@dataclass(frozen=True)
class Cell:
    """One student by one measure. `marks` are of BEST, LIKE_BEST and LIKE_BASELINE."""

    value: str
    low: str
    high: str
    marks: str

    @property
    def text(self) -> str:
        return f"{self.value}{self.marks} [{self.low}, {self.high}]"


@dataclass(frozen=True)
class Column:
    """A measure; `better` is lower or higher."""

    name: str
    title: str
    better: str
    note: str

    @property
    def head(self) -> str:
        return f"{self.title} {_ARROWS[self.better]}"


@dataclass(frozen=True)
class Compared:
    """All students by all measures, in the papers' layout: one line a student, one column a measure.

    `remark` is what a reader of the table alone has to know of the students.
    """

    students: Sequence[str]
    columns: Sequence[Column]
    cells: Mapping[tuple[str, str], Cell]
    baseline: str
    confidence: float
    remark: str = ""

    @staticmethod
    def of(node: Node, remark: str = "") -> Compared:
        rows = node.rows("cells")
        columns = {row["measure"]: Column(row["measure"], row["title"], row["better"], row["note"]) for row in rows}
        baseline = str(node.figures["baseline"])
        named = dict.fromkeys(row["student"] for row in rows)
        students = dict.fromkeys([*(each for each in ("base", baseline) if each in named), *named])
        return Compared(
            list(students),
            list(columns.values()),
            {(row["student"], row["measure"]): _cell(row) for row in rows},
            baseline,
            float(node.figures["confidence"]),
            remark,
        )

    @property
    def legend(self) -> str:
        """What the marks say, and the remark."""
        text = f"{BEST} best of its column · {LIKE_BEST} cannot be told from the best"
        if self.baseline in self.students:
            text += f" · {LIKE_BASELINE} cannot be told from {self.baseline}"
        text += f" (paired intervals of {100 * self.confidence:g} %, not corrected for their number)."
        return f"{text} {self.remark}".rstrip()

    def cell(self, student: str, column: Column) -> Cell | None:
        return self.cells.get((student, column.name))

    def as_csv(self) -> str:
        """One line a student; of each measure the value, both ends of its interval, and its marks in words."""
        file = io.StringIO()
        out = csv.writer(file, lineterminator="\n")
        parts = ("", "_low", "_high", "_marks")
        out.writerow(["student", *(f"{column.name}{part}" for column in self.columns for part in parts)])
        for student in self.students:
            line = [student]
            for column in self.columns:
                cell = self.cell(student, column)
                line += [_plain(each) for each in (cell.value, cell.low, cell.high)] if cell else [""] * 3
                line.append(_said(cell.marks) if cell else "")
            out.writerow(line)
        return file.getvalue()

    def as_latex(self) -> str:
        """A `tabular` for a paper (booktabs): the best in bold, intervals small."""
        lines = [
            rf"% {self.legend}".replace("°", "circ").replace("†", "dagger"),
            rf"\begin{{tabular}}{{l{'c' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(["Student", *(_latex_head(column) for column in self.columns)]) + r" \\",
            r"\midrule",
        ]
        for student in self.students:
            cells = [_latex_cell(self.cell(student, column)) for column in self.columns]
            lines.append(" & ".join([student.translate(_LATEX), *cells]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def as_html(self, title: str) -> str:
        """A page that holds nothing but the table and loads nothing."""
        return render_table(title, self)


def _cell(row: Mapping[str, Any]) -> Cell:
    value, low, high = (fixed(row[name], row["decimals"]) for name in ("value", "low", "high"))
    marks = {BEST: row["best"], LIKE_BEST: row["like_best"], LIKE_BASELINE: row["like_baseline"]}
    return Cell(value, low, high, "".join(mark for mark, given in marks.items() if given))


def _plain(number: str) -> str:
    return number.replace("−", "-").replace(",", "")


def _said(marks: str) -> str:
    words = {BEST: "best", LIKE_BEST: "like best", LIKE_BASELINE: "like baseline"}
    return "; ".join(words[mark] for mark in marks)


def _latex_head(column: Column) -> str:
    arrow = {"lower": r"$\downarrow$", "higher": r"$\uparrow$"}[column.better]
    return f"{column.title.translate(_LATEX)} {arrow}"


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    value = cell.value.translate(_LATEX)
    if BEST in cell.marks:
        value = rf"\textbf{{{value}}}"
    marks = "".join(_LATEX_MARKS[mark] for mark in cell.marks if mark in _LATEX_MARKS)
    return rf"{value}{marks} {{\scriptsize [{cell.low.translate(_LATEX)}, {cell.high.translate(_LATEX)}]}}"
