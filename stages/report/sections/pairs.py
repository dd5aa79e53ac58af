"""The preference pairs that the teacher was trained on."""

from __future__ import annotations

from typing import Any

from stages.report.nodes import Nodes, Row
from stages.report.section import Pair, Section, Table, left_out
from stages.report.words import count, number, plural, signed

TITLE = "Preference pairs"
_SCORES = {
    "pairs": "the score of each is the mean score of its instruction over the responses to it.",
    "preferences": "the score of each is the share of preference questions that the student answers rightly with it as "
    "its one example: of a question, the mean over its rationales.",
}
_TAGS = ("<instruction>", "</instruction>", "<question>", "</question>")


def section(nodes: Nodes, examples: int) -> Section:
    found = nodes.of_stage("pairs") or nodes.of_stage("preferences")
    if not found:
        return left_out("pairs", TITLE, "This run trained no teacher, so it has no preference pairs.")
    last = nodes.latest(found[-1].stage) or found[-1]
    rows = last.rows()
    table = Table(
        "Pairs by iteration",
        [
            "node",
            "prompts",
            "pairs",
            "for training",
            "held out",
            "ties left out",
            "median gap",
            "gap over its st. error",
        ],
        [_counted(node.name, node.rows(), node.figures) for node in found],
        numeric=range(1, 8),
    )
    shown = _spread(rows, examples)
    text = [
        f"{plural(len(rows), 'pair')} in {last.name}. Chosen and rejected are two outputs to the same prompt; "
        f"{_SCORES[last.stage]}"
    ]
    if shown:
        text.append(f"{plural(len(shown), 'example')}, from the widest gap to the narrowest:")
    return Section("pairs", TITLE, text, [table, *map(_example, shown)], {"pairs": len(rows)})


def _counted(name: str, rows: list[Row], figures: dict[str, Any]) -> list[str]:
    splits = figures.get("splits", {})
    sure = sorted(row["gap"] / row["gap_stderr"] for row in rows if row["gap_stderr"])
    return [
        name,
        count(len({row["prompt_id"] for row in rows})),
        count(len(rows)),
        count(splits.get("train", 0)),
        count(splits.get("heldout", 0)),
        str(figures.get("ties", "")),
        number(_middle(sorted(row["gap"] for row in rows))),
        number(_middle(sure), 2),
    ]


def _middle(values: list[float]) -> float | None:
    return values[len(values) // 2] if values else None


def _spread(rows: list[Row], wanted: int) -> list[Row]:
    """Pairs evenly spread over the gaps, so that the examples are not only the best ones."""
    ordered = sorted(rows, key=lambda row: (-row["gap"], row["pair_id"]))
    if len(ordered) <= wanted or wanted < 2:
        return ordered[:wanted]
    return [ordered[round(index * (len(ordered) - 1) / (wanted - 1))] for index in range(wanted)]


def _example(row: Row) -> Pair:
    error = f" ± {number(row['gap_stderr'], 2)}" if row["gap_stderr"] else ""
    return Pair(
        f"Gap {number(row['gap'])}{error} ({row['split']}, prompt {row['prompt_id'][:8]})",
        _without_tag(row["chosen"]),
        _without_tag(row["rejected"]),
        signed(row["chosen_score"]),
        signed(row["rejected_score"]),
    )


def _without_tag(output: str) -> str:
    for tag in _TAGS:
        output = output.replace(tag, "")
    return output.strip()
