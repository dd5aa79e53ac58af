"""What each node cost, and every row of the data set."""

from __future__ import annotations

from stages.contract.ledger import Ledger, add_ledgers
from stages.report.nodes import Node, Nodes
from stages.report.section import Section, Table
from stages.report.words import NONE, count, plural, seconds, size

TITLE = "What it cost"
_PHASES = ("load", "compute", "wait", "upload")


def section(nodes: Nodes, dataset: Node | None, rows: int) -> Section:
    """`rows` is the number of usable rows of the data set."""
    total = add_ledgers(node.ledger for node in nodes)
    head = ["node", *_PHASES, "device", "tokens", "rows in", "kept", "per kept row", "peak memory"]
    foot = [*_row("all", total)[:7], "", "", "", size(total.peak_memory_bytes)]
    costs = [_row(node.name, node.ledger) for node in nodes]
    used = [index for index in range(len(head)) if any(row[index] != NONE for row in costs)]
    table = Table(
        "Costs by node",
        [head[index] for index in used],
        [[row[index] for index in used] for row in costs],
        numeric=range(1, len(used)),
        foot=[foot[index] for index in used],
    )
    numbers = {
        "seconds": total.total_seconds,
        "device_seconds": total.device_seconds,
        "tokens": total.tokens,
        "peak_memory_bytes": total.peak_memory_bytes,
    }
    text = [
        "Seconds are wall-clock time of the processes, added up over shards; device seconds are compute times devices."
    ]
    if dataset is not None and rows:
        upstream = nodes.upstream(dataset.name)
        made = add_ledgers(node.ledger for node in upstream)
        own = add_ledgers(node.ledger for node in upstream if node.branch == dataset.branch)
        numbers["seconds_per_row"] = made.total_seconds / rows
        text.append(
            f"{dataset.name} has {plural(rows, 'usable row')}. All that it took to make them, the teacher's training "
            f"included, is {seconds(made.total_seconds)}: {seconds(made.total_seconds / rows)} a row; with the teacher "
            f"at hand a further row costs {seconds(own.total_seconds / rows)}."
        )
    return Section("cost", TITLE, text, [table], numbers)


def _row(name: str, ledger: Ledger) -> list[str]:
    per_row = ledger.total_seconds / ledger.rows_kept if ledger.rows_kept else None
    return [
        name,
        *(_seconds(ledger.seconds.get(phase, 0.0)) for phase in _PHASES),
        _seconds(ledger.device_seconds),
        count(ledger.tokens) if ledger.tokens else NONE,
        count(ledger.rows_in) if ledger.rows_in else NONE,
        count(ledger.rows_kept) if ledger.rows_kept else NONE,
        NONE if per_row is None else (seconds(per_row) if per_row >= 0.1 else f"{1000 * per_row:.1f} ms"),
        size(ledger.peak_memory_bytes),
    ]


def _seconds(value: float) -> str:
    return seconds(value) if value >= 0.05 else NONE
