"""What was left out on the way, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stages.report.nodes import Node, Nodes, Row
from stages.report.section import Section, Table, left_out
from stages.report.words import count, percent

TITLE = "What was filtered, and why"
_EXAMPLE_CHARACTERS = 90
# The table that names what was left out, and the columns that say why and show an example.
_DROPPED = {
    "prepare": ("dropped", "reason", "instruction"),
    "instructions": ("rows", "reason", "output"),
    "curate": ("dropped", "reason", "instruction"),
    "responses": ("rows", "reason", "instruction"),
    "influence": ("rows", "reason", None),
    "questions": ("rows", "reason", "output"),
    "select": ("dropped", "reason", "instruction"),
    "rationales": ("rows", "reason", "instruction"),
    "incontext": ("rows", "reason", None),
}


def section(nodes: Nodes) -> Section:
    kept_rows: list[list[str]] = []
    reason_rows: list[list[str]] = []
    counts: dict[str, dict[str, int]] = {}
    for node in nodes:
        if node.stage not in _DROPPED:
            continue
        table, reason, example = _DROPPED[node.stage]
        columns = [reason, *([example] if example else [])]
        left = [row for row in node.rows(table, columns) if row[reason]]
        reasons = _by_reason(left, reason)
        counts[node.name] = dict(reasons)
        rows_in, dropped = _rows_in(node), len(left)
        kept_rows.append([node.name, count(rows_in), count(rows_in - dropped), percent(1 - dropped / max(1, rows_in))])
        reason_rows += [
            [node.name, why.replace("_", " "), count(number), _example(left, reason, why, example)]
            for why, number in reasons.most_common()
        ]
    if not kept_rows:
        return left_out("filtered", TITLE, "Nothing in this run filters rows.")
    blocks = [Table("Rows in and kept", ["node", "in", "kept", "share"], kept_rows, numeric=(1, 2, 3))]
    if reason_rows:
        head = ["node", "reason", "rows", "one of them"]
        blocks.append(Table("Left out by reason", head, reason_rows, numeric=(2,)))
    text = ["Nothing is dropped in silence: each row that was left out stands in its node's table with its reason."]
    numbers: dict[str, Any] = {"dropped": counts}
    if (overlap := _overlap(nodes)) is not None:
        numbers["seeds_in_reference"] = overlap
        text.append(
            f"Of the seeds, {overlap['heldout']} are held-out rows and {overlap['probe']} are probe rows: the recipe "
            "keeps them on purpose (prepare.overlap: keep)."
        )
    return Section("filtered", TITLE, text, blocks, numbers)


def _overlap(nodes: Nodes) -> dict[str, int] | None:
    """Seeds that are reference rows too, by half, where the recipe keeps them."""
    prepared = nodes.latest("prepare")
    return prepared.figures.get("seeds_in_reference") if prepared else None


def _by_reason(rows: Iterable[Row], column: str) -> Counter[str]:
    """Counts by reason; what follows a colon is detail of the single row."""
    return Counter(row[column].partition(":")[0] for row in rows)


def _rows_in(node: Node) -> int:
    if node.stage in ("prepare", "curate", "select"):
        return node.ledger.rows_in or sum(node.manifest.tables.values())
    return node.manifest.tables.get("rows", 0)


def _example(rows: list[Row], reason: str, why: str, column: str | None) -> str:
    if column is None:
        return ""
    texts = (row[column] for row in rows if row[reason].partition(":")[0] == why and row[column])
    found = " ".join(next(texts, "").split())
    return found if len(found) <= _EXAMPLE_CHARACTERS else found[: _EXAMPLE_CHARACTERS - 1] + "…"
