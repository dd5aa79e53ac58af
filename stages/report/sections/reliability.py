"""How much of a score is a property of the instruction, and how much chance of the response it was measured on."""

from __future__ import annotations

from typing import Any

from stages.report.draw.charts import Line, lines, stacked
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.words import fixed, number, percent

TITLE = "How reliable the scores are"
_COMPONENTS = ("prompt", "instruction", "response")
_COUNTS = (1, 2, 4, 8)


def section(nodes: Nodes) -> Section:
    found = nodes.of_stage("aggregate")
    if not found:
        return left_out("reliability", TITLE, "This run averaged no scores, so it cannot say how reliable they are.")
    shares = [(node.name, _shares(node)) for node in found if _shares(node)]
    blocks: list[Figure | Table] = []
    if shares:
        blocks.append(
            Figure(
                "reliability",
                stacked(shares, title="Where the variance of scores comes from"),
                "Variance of single scores: between prompts, between instructions of a prompt, and between responses "
                "to the same instruction (with numerical noise). To a pair of instructions the last is chance.",
            )
        )
    curves = [(node.name.removesuffix(".aggregate"), _curve(node)) for node in found]
    if all(curve for _, curve in curves):
        drawing = lines(
            [Line(name, curve) for name, curve in curves],
            x_label="responses an instruction",
            y_label="reliability within a prompt",
            title="Reliability of mean scores by the number of responses",
        )
        blocks.append(Figure("reliability-by-responses", drawing, "What more responses an instruction would give."))
    blocks.append(
        Table(
            "Reliability of a mean over so many responses (0: chance, 1: certain)",
            ["", *map(str, _COUNTS), "used here", "responses"],
            [row for node in found for row in _rows(node)],
            numeric=range(1, 7),
        )
    )
    last = nodes.latest("aggregate") or found[-1]
    numbers: dict[str, Any] = {
        "node": last.name,
        "responses": last.figures.get("responses"),
        "within_prompt": last.figures["within_prompt_reliability"]["mean"],
        "unknown": last.figures["within_prompt_reliability"].get("unknown"),
        "any_two": last.figures["reliability"]["mean"],
    }
    return Section("reliability", TITLE, [_text(last)], blocks, numbers)


def _shares(node: Node) -> dict[str, float]:
    parts = {name: node.figures["components"][name]["share"] for name in _COMPONENTS}
    return parts if all(share is not None for share in parts.values()) else {}


def _curve(node: Node) -> list[tuple[float, float]]:
    found = node.figures["within_prompt_reliability"]["by_responses"]
    return [(k, found[str(k)]) for k in _COUNTS if found[str(k)] is not None]


def _rows(node: Node) -> list[list[str]]:
    rows = []
    for key, label in (("within_prompt_reliability", "same prompt"), ("reliability", "any two instructions")):
        figures = node.figures[key]
        at = [fixed(figures["by_responses"][k], 2) for k in map(str, _COUNTS)]
        responses = number(node.figures["responses"])
        rows.append([f"{node.name.partition('.')[0]}, {label}", *at, fixed(figures["mean"], 2), responses])
    return rows


def _text(node: Node) -> str:
    figures = node.figures["within_prompt_reliability"]
    if figures["mean"] is None:
        why = f" ({figures['unknown']})" if figures.get("unknown") else ""
        return (
            f"The reliability is unknown{why}: it needs instructions with more than one scored response, prompts with "
            "more than one instruction (responses.samples, instructions.samples), and scores that differ."
        )
    known = figures["low"] is not None
    interval = f", 95 % interval {figures['low']:.2f} to {figures['high']:.2f}" if known else ""
    return (
        f"Preference pairs compare instructions of one prompt. There {percent(figures['mean'])} of the variance of the "
        f"mean scores is the instructions' own (one response alone: {percent(figures['one_response'])}{interval}); the "
        "rest is chance."
    )
