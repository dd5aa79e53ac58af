"""How data and student change while the teacher is trained: before it, at its checkpoints, and after it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stages.evaluate.bootstrap import Interval
from stages.report.branches import Branches
from stages.report.draw.points import Box, Point, Series, boxes, points
from stages.report.nodes import Node, Nodes
from stages.report.section import Figure, Section, Table, left_out
from stages.report.statistics import Scores, mean
from stages.report.words import NONE, common_exponent, count, fixed, percent, unit

TITLE = "The teacher's progress"
_COLUMNS = ("prompt_id", "score", "tie")
_FRESH = "Data on prompts that no preference pair came from."
_SEEN = (
    "Some prompts of these data are ones that preference pairs came from (another fresh.instructions.seed avoids it)."
)


@dataclass(frozen=True)
class _Stop:
    """A teacher on its way: the branch of its data, and after how many steps."""

    branch: str
    step: int
    name: str


def section(nodes: Nodes, branches: Branches) -> Section:
    dpo = nodes.source(f"{branches.main}.instructions", "teacher")
    kept = nodes.on_the_way(branches.main)
    if dpo is None or not kept:
        why = "This run looked at its teacher before and after its training only (dpo.checkpoints: 3 looks on the way)."
        return left_out("progress", TITLE, why)
    # A later round's teacher was no unmodified one before its first step.
    began = nodes.source(dpo.name, "teacher") is None
    stops = [
        *([_Stop(branches.unmodified, 0, "before")] if began and _looked_at(nodes, branches.unmodified) else []),
        *(_Stop(each["folder"], each["step"], f"step {each['step']}") for each in kept),
        _Stop(branches.main, dpo.figures["steps"], f"step {dpo.figures['steps']}"),
    ]
    losses, trained = _losses(nodes, stops), _trained(nodes, stops)
    scored = {stop: found for stop in stops if (found := _scores(nodes, stop)) is not None}
    means = {stop: mean(found) for stop, found in scored.items()}
    blocks: list[Figure | Table] = []
    if losses:
        line = [Point(stop.step, loss) for stop, loss in losses.items()]
        drawing = points(
            [Series("student", line, "b")],
            x_label=f"optimiser steps of {dpo.name}",
            y_label="held-out loss (nats per token)",
            title="The student's held-out loss by the teacher's training",
        )
        blocks.append(
            Figure(
                "progress-students",
                drawing,
                f"One student for each teacher, all from the same start and on {_amount(trained)}. The intervals are "
                "those of each loss alone, which share their rows; the table above judges differences.",
            )
        )
    if scored:
        rows = [Box(stop.name, found.values, means[stop], "b" if stop.step else "c") for stop, found in scored.items()]
        drawing = boxes(rows, x_label="influence of a row", title="Influence of each teacher's data")
        seen = _prompts_of_pairs(nodes, dpo) & {prompt for found in scored.values() for prompt in found.prompts}
        caption = (
            f"{_SEEN if seen else _FRESH} Thin line: 90 % of the rows; bar: half of them; tick: "
            "median; dot below: mean with its 95 % interval."
        )
        blocks.append(Figure("progress-influence", drawing, caption))
        line = [Point(stop.step, _share(found)) for stop, found in scored.items()]
        drawing = points(
            [Series("helpful", line, "d")],
            x_label=f"optimiser steps of {dpo.name}",
            y_label="% of rows that help",
            title="Share of rows with positive influence",
        )
        caption = "Rows whose score is above 0, ties included; intervals by resampling prompts."
        blocks.append(Figure("progress-helpful", drawing, caption))
    blocks.append(_table(stops, losses, trained, scored, means))
    numbers = {
        stop.name: {
            "step": stop.step,
            "branch": stop.branch,
            "rows": trained.get(stop),
            "loss": asdict(losses[stop]) if stop in losses else None,
            "influence": asdict(means[stop]) if stop in means else None,
            "helpful": scored[stop].helpful / len(scored[stop].values) if stop in scored else None,
        }
        for stop in stops
    }
    text = f"{dpo.name} was looked at after {', '.join(str(stop.step) for stop in stops if stop.step)} steps."
    return Section("progress", TITLE, [text], blocks, numbers)


def _looked_at(nodes: Nodes, branch: str) -> bool:
    return any(node.branch == branch for node in nodes)


def _prompts_of_pairs(nodes: Nodes, dpo: Node) -> set[str]:
    pairs = nodes.source(dpo.name, "pairs")
    return {row["prompt_id"] for row in pairs.rows(columns=("prompt_id",))} if pairs else set()


def _losses(nodes: Nodes, stops: list[_Stop]) -> dict[_Stop, Interval]:
    node = nodes.own_evaluation()
    students: dict[str, Any] = node.figures["students"] if node else {}
    return {
        stop: Interval(found["value"], found["low"], found["high"])
        for stop in stops
        if (found := students.get(stop.branch)) is not None
    }


def _trained(nodes: Nodes, stops: list[_Stop]) -> dict[_Stop, int]:
    """The rows that each teacher's student was trained on."""
    students = nodes.trained_students()
    return {stop: students[stop.branch].figures["rows"] for stop in stops if stop.branch in students}


def _amount(trained: dict[_Stop, int]) -> str:
    fewest, most = min(trained.values(), default=0), max(trained.values(), default=0)
    if fewest == most:
        return "as many rows"
    return f"{count(fewest)} to {count(most)} rows, as the table below says: fewer rows alone can make a higher loss"


def _scores(nodes: Nodes, stop: _Stop) -> Scores | None:
    node: Node | None = nodes.get(f"{stop.branch}.influence")
    found = Scores.of(node.rows(columns=_COLUMNS)) if node else None
    return found if found is not None and found.values else None


def _share(scores: Scores) -> Interval:
    """Per cent of rows above 0, with its interval."""
    return mean(Scores([100.0 * (value > 0) for value in scores.values], scores.prompts, 0, 0, 0))


def _table(
    stops: list[_Stop],
    losses: dict[_Stop, Interval],
    trained: dict[_Stop, int],
    scored: dict[_Stop, Scores],
    means: dict[_Stop, Interval],
) -> Table:
    exponent = common_exponent([each for found in means.values() for each in (found.low, found.high)])

    def influence(stop: _Stop) -> list[str]:
        if stop not in means:
            return [NONE] * 4
        found, scores = means[stop], scored[stop]
        low, value, high = (fixed(each / 10.0**exponent, 3) for each in (found.low, found.value, found.high))
        return [count(len(scores.values)), value, f"{low} … {high}", percent(scores.helpful / len(scores.values))]

    return Table(
        f"Teacher by teacher; influence{unit(exponent)}",
        ["teacher", "data", "trained on", "held-out loss", "scored rows", "mean influence", "95 % interval", "helpful"],
        [
            [
                stop.name,
                stop.branch,
                count(trained[stop]) if stop in trained else NONE,
                fixed(losses[stop].value, 4) if stop in losses else NONE,
                *influence(stop),
            ]
            for stop in stops
        ],
        numeric=range(2, 8),
    )
