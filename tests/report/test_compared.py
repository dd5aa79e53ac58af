"""The table of all students as HTML, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from stages.contract.store import FileStore
from tests.report.made_up import made_up_run
from tests.report.test_report import Page, report


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compared")
    store = FileStore(root / "store")
    return report(store, made_up_run(store, root / "models", prompts=12), root) / "tables"


def test_the_csv_has_a_line_a_student_and_plain_numbers(tables: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((tables / "comparison.csv").read_text())))
    assert [row["student"] for row in rows] == ["base", "self-instruct", "tailored"]
    best = rows[2]
    assert (float(best["lc_winrate"]), float(best["lc_winrate_low"])) == (58.2, 58.0)
    assert best["lc_winrate_marks"] == "best; like baseline"
    assert best["mtbench"] == ""  # no cell: not a zero


def test_the_latex_is_a_tabular_whose_lines_all_have_as_many_cells(tables: Path) -> None:
    text = (tables / "comparison.tex").read_text()
    assert r"\begin{tabular}{lccc}" in text and r"\textbf{58.2}" in text and r"$^{\dagger}$" in text
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4 and {line.count("&") for line in lines} == {3}
    assert text.isascii() or set(filter(lambda each: not each.isascii(), text)) <= {"·"}


def test_the_html_is_a_page_of_its_own_that_says_what_the_marks_mean(tables: Path) -> None:
    page = Page((tables / "comparison.html").read_text(encoding="utf-8"))
    assert len(page.all("tr")) == 4
    assert "† cannot be told from the best" in page.text and "° cannot be told from self-instruct" in page.text
    assert "MT-Bench: 31 questions." in page.text


def test_the_report_says_how_many_judgements_could_not_be_used(tables: Path) -> None:
    page = Page((tables.parent / "report.html").read_text(encoding="utf-8"))
    assert "winrate: of 62 judgements could not be used: 3 no verdict." in page.text
    assert "harness: no question counts for any student, so it has no column." in page.text
