"""The loop as a picture, with seconds and rows."""

from __future__ import annotations

from stages.report.draw.loop import LoopNode, draw_loop
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section
from stages.report.words import plural, seconds

_ROWS = {
    "prepare": (("seeds", "seed"),),
    "pairs": (("rows", "pair"),),
    "preferences": (("rows", "pair"),),
    "tasks": (("items", "question"),),
    "irt": (("rows", "question"),),
    "accuracy": (("rows", "answer"),),
    "aggregate": (("rows", "mean"),),
    "evaluate": (("rows", "loss", "losses"),),
    "audit": (("rows", "row"),),
    "comparison": (("cells", "cell"),),
}


def section(nodes: Nodes) -> Section:
    most = max((node.ledger.total_seconds for node in nodes), default=0.0) or 1.0
    drawn = [
        LoopNode(
            node.name,
            node.branch,
            node.name.removeprefix(f"{node.branch}."),
            [seconds(node.ledger.total_seconds), *_rows(node)],
            node.ledger.total_seconds / most,
        )
        for node in nodes
    ]
    title = "The nodes of the run and what goes into what"
    across, down = (draw_loop(drawn, nodes.edges, across=each, title=title) for each in (True, False))
    caption = (
        "Seconds of work over all shards, and rows kept. The bar in a box is its time against the longest node's. "
        "Arrows that a longer path implies are left out."
    )
    total = sum(node.ledger.total_seconds for node in nodes)
    text = f"{plural(len(list(nodes)), 'node')}, {seconds(total)} of work in all."
    return Section("loop", "The loop", [text], [Figure("loop", across, caption, narrow=down)])


def _rows(node: Node) -> list[str]:
    if node.stage in _ROWS:
        return [
            plural(node.manifest.tables[table], *words)
            for table, *words in _ROWS[node.stage]
            if table in node.manifest.tables
        ]
    if "rows" in node.manifest.tables:
        return [plural(node.ledger.rows_kept or node.manifest.tables["rows"], "row")]
    trained = node.figures.get("rows")
    return [plural(trained, "pair" if node.stage == "dpo" else "row")] if isinstance(trained, int) else []
