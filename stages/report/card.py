"""What the dataset card says of the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stages.report.nodes import Node, Row
from stages.report.page import render_card
from stages.report.section import Table
from stages.report.verdict import Finding
from stages.report.words import count

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(
    *,
    title: str,
    run: str,
    recipe: dict[str, Any],
    dataset: Node,
    rows: list[Row],
    findings: Sequence[Finding],
    tables: Sequence[Table],
) -> str:
    """The card of the data set's usable `rows`; `tables` are shown as Markdown."""
    name = re.sub(r"[^a-z0-9-]+", "-", (run or title).lower()).strip("-") or "montessori"
    header = {
        "pretty_name": title,
        "tags": ["synthetic", "instruction-tuning", "montessori"],
        "task_categories": ["text-generation"],
        "size_categories": [next((label for most, label in _SIZES if len(rows) < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.parquet"}]}],
    }
    words = sum(len(row["response"].split()) for row in rows) / max(1, len(rows))
    return render_card(
        header,
        {
            "title": title,
            "name": name,
            "rows": count(len(rows)),
            "words": f"{words:.0f}",
            "teacher": _model(recipe.get("teacher")),
            "student": _model(recipe.get("student")),
            "node": dataset.name,
            "digest": dataset.manifest.digest,
            "findings": findings,
            "tables": [_markdown(table) for table in tables],
        },
    )


def _model(source: Any) -> str:
    if not isinstance(source, dict) or "model" not in source:
        return "not named"
    dropped = source.get("drop_layers")
    return f"{source['model']} without layers {', '.join(map(str, dropped))}" if dropped else str(source["model"])


def _markdown(table: Table) -> str:
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.head))]
    lines = [table.head, rule, *table.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
    return f"{table.caption}:\n\n{body}"
