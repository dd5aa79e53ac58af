"""report: every artifact of a run → report.html, README.md (the dataset card), figures/*.svg, tables/, summary.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.contract.context import StageContext
from stages.report.amounts import said, unequal
from stages.report.branches import Branches
from stages.report.card import dataset_card
from stages.report.compared import Compared
from stages.report.nodes import Node, Nodes, Row
from stages.report.page import render_page
from stages.report.section import Section, Table
from stages.report.sections import (
    agreement,
    audit,
    comparison,
    cost,
    diversity,
    filtered,
    influence,
    lengths,
    loop,
    pairs,
    progress,
    reliability,
    students,
    tasks,
    texts,
    training,
    transfer,
    value,
)
from stages.report.settings import ReportSettings
from stages.report.verdict import Finding, verdict
from stages.report.words import count, plural, seconds, size

PREFIX = "node."


def run(context: StageContext) -> None:
    settings: ReportSettings = context.settings
    names = context.names(PREFIX)
    nodes = Nodes(
        ((name.removeprefix(PREFIX), context.artifact(name)) for name in names), settings.edges, settings.main
    )
    context.progress.begin(1, unit="pages", phase="writing")
    with context.meter.phase("compute"):
        dataset, rows = _dataset(nodes, settings.main)
        sections = _sections(nodes, settings, dataset, len(rows))
        numbers = {section.id: dict(section.numbers) for section in sections}
        findings = verdict(numbers, settings.main, settings.baseline)
        folder = context.scratch / "report"
        _write(folder, settings, nodes, sections, findings, len(rows))
        if dataset is not None and rows:
            _write_card(folder, settings, dataset, rows, sections, findings)
    context.meter.count(rows_in=len(names), rows_kept=len(names))
    context.progress.advance()
    context.publish(folder=folder, figures={"verdict": [finding.text for finding in findings], "numbers": numbers})


def _sections(nodes: Nodes, settings: ReportSettings, dataset: Node | None, rows: int) -> list[Section]:
    branches = Branches(settings.main, settings.baseline, settings.unmodified)
    of_tasks = tasks.section(nodes, branches)
    of_others = transfer.section(nodes, branches)
    return [
        loop.section(nodes),
        *([of_tasks] if of_tasks else []),
        influence.section(nodes, branches),
        students.section(nodes, branches),
        comparison.section(nodes),
        *([of_others] if of_others else []),
        progress.section(nodes, branches),
        texts.section(nodes, branches),
        lengths.section(nodes),
        reliability.section(nodes),
        agreement.section(nodes),
        audit.section(nodes),
        pairs.section(nodes, settings.examples),
        diversity.section(nodes),
        filtered.section(nodes),
        training.section(nodes, branches),
        value.section(nodes, branches),
        cost.section(nodes, dataset, rows),
    ]


def _dataset(nodes: Nodes, main: str) -> tuple[Node | None, list[Row]]:
    """The node whose rows are the run's data set, and those that are usable."""
    written = (nodes.get(f"{main}.{stage}") or nodes.latest(stage) for stage in ("responses", "rationales"))
    node = next((each for each in written if each is not None), None)
    if node is None:
        return None, []
    return node, [row for row in node.rows(columns=("instruction", "response", "usable")) if row["usable"]]


def _write(
    folder: Path, settings: ReportSettings, nodes: Nodes, sections: list[Section], findings: list[Finding], rows: int
) -> None:
    (folder / "figures").mkdir(parents=True)
    for section in sections:
        for figure in section.figures:
            (folder / "figures" / f"{figure.name}.svg").write_text(figure.svg.standalone(figure.name), encoding="utf-8")
    if (node := nodes.latest("comparison")) is not None:
        _write_tables(folder / "tables", settings.title, Compared.of(node, said(unequal(nodes))))
    page = render_page(settings.title, findings, _facts(settings, nodes, rows), sections, settings.recipe)
    (folder / "report.html").write_text(page, encoding="utf-8")
    summary: dict[str, Any] = {
        "run": settings.run,
        "title": settings.title,
        "verdict": [{"tone": finding.tone, "text": finding.text} for finding in findings],
        "numbers": {section.id: section.numbers for section in sections if section.numbers},
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def _write_tables(folder: Path, title: str, compared: Compared) -> None:
    folder.mkdir()
    forms = {"html": compared.as_html(title), "csv": compared.as_csv(), "tex": compared.as_latex()}
    for form, text in forms.items():
        (folder / f"comparison.{form}").write_text(text, encoding="utf-8")


def _write_card(
    folder: Path,
    settings: ReportSettings,
    dataset: Node,
    rows: list[Row],
    sections: list[Section],
    findings: list[Finding],
) -> None:
    tables = [
        block
        for section in sections
        if section.id in ("influence", "students")
        for block in section.blocks
        if isinstance(block, Table)
    ]
    card = dataset_card(
        title=settings.title,
        run=settings.run,
        recipe=settings.recipe,
        dataset=dataset,
        rows=rows,
        findings=findings,
        tables=tables,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _facts(settings: ReportSettings, nodes: Nodes, rows: int) -> dict[str, str]:
    """What stands under the heading."""
    facts = {"Run": settings.run or settings.title}
    for name in ("teacher", "student"):
        source = settings.recipe.get(name)
        if isinstance(source, dict) and "model" in source:
            dropped = source.get("drop_layers")
            facts[name.capitalize()] = str(source["model"]) + (
                f", {plural(len(dropped), 'layer')} left out" if dropped else ""
            )
    facts["Data"] = f"{count(rows)} usable rows"
    facts["Work"] = seconds(sum(node.ledger.total_seconds for node in nodes))
    facts["Most memory"] = size(max((node.ledger.peak_memory_bytes for node in nodes), default=0))
    return facts
