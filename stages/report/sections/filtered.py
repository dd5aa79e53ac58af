"""What was left out on the way, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stages.report.nodes import Node, Nodes, Row
from stages.report.section import Section, Table, left_out
from stages.report.words import count, percent, plural

TITLE = "What was filtered, and why"
_EXAMPLE_CHARACTERS = 90
# Of each stage the tables whose column `reason` names what was left out, and the column that shows an example. A judge
# is asked several times of a candidate: what could not be read of it is in its answers.
_DROPPED: dict[str, dict[str, str | None]] = {
    "prepare": {"dropped": "instruction"},
    "instructions": {"rows": "output"},
    "curate": {"dropped": "instruction"},
    "responses": {"rows": "instruction"},
    "influence": {"rows": None},
    "judge": {"rows": None, "answers": "answer"},
    "loss": {"rows": None},
    "questions": {"rows": "output"},
    "select": {"dropped": "instruction"},
    "rationales": {"rows": "instruction"},
    "incontext": {"rows": None},
}


def section(nodes: Nodes) -> Section:
    kept_rows: list[list[str]] = []
    reason_rows: list[list[str]] = []
    counts: dict[str, dict[str, int]] = {}
    cut: dict[str, dict[str, int]] = {}
    named = [(node, *each) for node in nodes for each in _DROPPED.get(node.stage, {}).items()]
    for node, table, example in named:
        name = f"{node.name}, {table}" if table == "answers" else node.name
        rows = node.rows(table, ["reason", "truncated", *([example] if example else [])])
        left = [row for row in rows if row["reason"]]
        shortened = {
            "candidate": sum(bool(row.get("truncated")) for row in rows),
            "reference row": node.figures.get("reference_truncated") or 0,
        }
        if any(shortened.values()):
            cut[name] = {what: number for what, number in shortened.items() if number}
        reasons = _by_reason(left)
        counts[name] = dict(reasons)
        rows_in, dropped = _rows_in(node, table), len(left)
        kept_rows.append([name, count(rows_in), count(rows_in - dropped), percent(1 - dropped / max(1, rows_in))])
        reason_rows += [
            [name, why.replace("_", " "), count(number), _example(left, why, example)]
            for why, number in reasons.most_common()
        ]
    if not kept_rows:
        return left_out("filtered", TITLE, "Nothing in this run filters rows.")
    blocks = [Table("Rows in and kept", ["node", "in", "kept", "share"], kept_rows, numeric=(1, 2, 3))]
    if reason_rows:
        head = ["node", "reason", "rows", "one of them"]
        blocks.append(Table("Left out by reason", head, reason_rows, numeric=(2,)))
    text = ["Nothing is dropped in silence: each row that was left out stands in its node's table with its reason."]
    numbers: dict[str, Any] = {"dropped": counts, "truncated": cut}
    if cut:
        found = "; ".join(f"{name} {_listed(each)}" for name, each in cut.items())
        text.append(f"Scored without their end, which did not fit max_tokens or the student's context: {found}.")
    if (overlap := _overlap(nodes)) is not None:
        numbers["seeds_in_reference"] = overlap
        text.append(
            f"Of the seeds, {overlap['heldout']} are held-out rows and {overlap['probe']} are probe rows: the recipe "
            "keeps them on purpose (prepare.overlap: keep)."
        )
    return Section("filtered", TITLE, text, blocks, numbers)


def _listed(counts: dict[str, int]) -> str:
    return " and ".join(plural(number, what) for what, number in counts.items())


def _overlap(nodes: Nodes) -> dict[str, int] | None:
    """Seeds that are reference rows too, by half, where the recipe keeps them."""
    prepared = nodes.latest("prepare")
    return prepared.figures.get("seeds_in_reference") if prepared else None


def _by_reason(rows: Iterable[Row]) -> Counter[str]:
    """Counts by reason; what follows a colon is detail of the single row."""
    return Counter(row["reason"].partition(":")[0] for row in rows)


def _rows_in(node: Node, table: str) -> int:
    if table == "dropped":  # apart from what was kept
        return node.ledger.rows_in or sum(node.manifest.tables.values())
    return node.manifest.tables.get(table, 0)


def _example(rows: list[Row], why: str, column: str | None) -> str:
    if column is None:
        return ""
    texts = (row[column] for row in rows if row["reason"].partition(":")[0] == why and row[column])
    found = " ".join(next(texts, "").split())
    return found if len(found) <= _EXAMPLE_CHARACTERS else found[: _EXAMPLE_CHARACTERS - 1] + "…"
