"""How varied the generated data are, and what of them repeats the rows that students are judged on."""

from __future__ import annotations

from typing import Any

from stages.diversity.settings import ALL_TASKS
from stages.report.nodes import Node, Nodes
from stages.report.section import Section, Table, left_out
from stages.report.words import count, fixed, percent

TITLE = "Diversity and contamination"
_EXAMPLES = 5
_PROBE = "reference probe"


def section(nodes: Nodes) -> Section:
    found = nodes.of_stage("diversity")
    if not found:
        return left_out("diversity", TITLE, "This run did not check how varied its data are.")
    table = Table(
        "What the teacher wrote, before duplicates are taken out",
        ["data", "texts compared", "distinct-1", "distinct-2", "distinct-3", "self-ROUGE", "clusters", "largest"],
        [row for node in found for row in _rows(node)],
        numeric=range(1, 8),
    )
    overlap = Table(
        "Rows that share a run of words with a row that students are judged on",
        ["data", "usable rows", "like held-out or evaluation rows", "share", "by set", "like probe rows only"],
        [_overlap(node) for node in found if node.figures["contaminated_by"]],
        numeric=(1, 2, 3, 5),
    )
    kept = Table(
        "Questions of trained teachers: the distinct ones and distinct-2, over the unmodified one's, of as many",
        ["data", "questions compared", "distinct questions", "distinct-2", "lowest of any task"],
        [_kept(node) for node in found if "kept" in node.figures],
        numeric=range(1, 4),
    )
    blocks = [table, *(each for each in (kept, overlap) if each.rows)]
    examples = [(node, row) for node in found for row in node.rows("contaminated")][:_EXAMPLES]
    if examples:
        rows = [[node.name, row["evaluation"], row["column"], row["run"]] for node, row in examples]
        blocks.append(Table("Some of them", ["data", "like a row of", "in its", "the words"], rows))
    text = [
        "distinct-n is the share of distinct runs of n words; self-ROUGE the mean ROUGE-L of a text with the nearest "
        "other one; a cluster holds the texts that resemble its first one. All depend on how many texts are compared, "
        "so only equal numbers can be. Of responses, one to each instruction and its beginning are compared. A trained "
        "teacher that lost variety against the unmodified one has begun to collapse.",
    ]
    return Section("diversity", TITLE, text, blocks, {"data": {node.name: _numbers(node) for node in found}})


def _rows(node: Node) -> list[list[str]]:
    return [
        _row(f"{_short(node)}, instructions", node.figures),
        _row(f"{_short(node)}, responses", node.figures["responses"]),
    ]


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    return [
        name,
        count(figures["texts"]),
        *(fixed(figures["distinct"][n], 2) for n in ("1", "2", "3")),
        fixed(figures["self_rouge"], 2),
        count(figures["clusters"]),
        percent(figures["largest_cluster"]),
    ]


def _kept(node: Node) -> list[str]:
    shares = {
        task: (each["texts"], each["distinct_texts"], each["distinct_pairs"])
        for task, each in node.figures["kept"].items()
    }
    texts, *overall = shares.pop(ALL_TASKS)
    least, task = min((share, task) for task, (_, *both) in shares.items() for share in both if share is not None)
    return [_short(node), count(texts), *map(percent, overall), f"{percent(least)} ({task})"]


def _overlap(node: Node) -> list[str]:
    figures = node.figures
    counts = (count(figures["rows"]), count(figures["contaminated"]), percent(figures["contaminated_share"]))
    by_set = ", ".join(f"{name}: {many}" for name, many in figures["contaminated_by"].items() if name != _PROBE)
    return [_short(node), *counts, by_set, count(figures["like_probe"])]


def _short(node: Node) -> str:
    return node.name.removesuffix(".diversity")


def _numbers(node: Node) -> dict[str, Any]:
    names = (
        "texts",
        "distinct",
        "self_rouge",
        "clusters",
        "largest_cluster",
        "responses",
        "rows",
        "contaminated",
        "contaminated_by",
        "kept",
    )
    return {name: node.figures[name] for name in names if name in node.figures}
