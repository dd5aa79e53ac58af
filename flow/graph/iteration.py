"""The rounds that `iterations` unrolls to: candidates, their scores, and what a method makes of these.

Every method of a run goes through the same rounds. Nodes are shared where they do the same work, so in the first round,
where all teachers are still the same, two methods have the candidates in common and differ from their scores on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flow.graph.asked import watched
from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Edge, Source
from flow.methods import TAILORED, UNSIGNED, Method, Scored
from stages.contract.spec import StageSettings


@dataclass(frozen=True)
class Iterated:
    """What a method's rounds leave.

    Before the first round the teacher is the recipe's own, it is shown the recipe's seeds, and there is nothing else.

    Attributes:
        seeds: what the teacher is shown when it writes.
        checkpoint, audit, instructions: of the last round, where it had one.
        scores: the method's own scores, by round.
    """

    teacher: Source
    seeds: Edge = PREPARE
    checkpoint: Edge | None = None
    audit: Edge | None = None
    instructions: Edge | None = None
    scores: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class _Candidates:
    """What one round scores, under names that begin with `prefix`."""

    prefix: str
    curated: Edge
    rows: Edge


def iterate(builder: Builder, method: Method, branch: str = TAILORED, control_of: tuple[Edge, ...] = ()) -> Iterated:
    """All rounds of one method, each with the teacher and the seeds that the one before left.

    Args:
        branch: whose rounds they are; the recipe's own have short names.
        control_of: the scores that the signal `random` shuffles, by round.
    """
    last = Iterated(builder.recipe.teacher)
    for number in range(1, builder.recipe.iterations + 1):
        prefix = f"it{number}" if branch == TAILORED else f"{branch}.it{number}"
        last = _round(builder, prefix, last, method, branch == TAILORED, control_of[number - 1 : number])
    return last


def _round(
    builder: Builder, prefix: str, last: Iterated, method: Method, own: bool, control_of: tuple[Edge, ...]
) -> Iterated:
    recipe = builder.recipe
    candidates = _generate(builder, prefix, last)
    more = tuple(each for each in recipe.signals if each != method.signal) if own else ()
    ended = replace(last, instructions=candidates.curated)
    measured = {method.signal, *more, *(("influence",) if own and recipe.measure else ())}
    if measured & {"influence", "loss"}:
        ended = _warm_up(builder, candidates, ended, audits="influence" in measured)
    scores = _score(builder, candidates, method.signal, ended, control_of)
    for each in more:
        _score(builder, candidates, each, ended, (scores,))
    means = builder.share(f"{prefix}.aggregate", "aggregate", {"scores": scores, "instructions": candidates.curated})
    ended = replace(ended, scores=(*last.scores, scores))
    if method.update == "reseed":
        return replace(ended, seeds=builder.share(f"{prefix}.reseed", "reseed", {"scores": means}))
    settings: Any = _pairs_settings(builder, method)
    responses = {"response_scores": scores, "responses": candidates.rows} if settings.optimise != "instructions" else {}
    pairs = builder.share(f"{prefix}.pairs", "pairs", {"scores": means, **responses}, settings)
    start = recipe.teacher if recipe.iterate_teacher == "base" else last.teacher
    return replace(ended, teacher=builder.share(f"{prefix}.dpo", "dpo", {"teacher": start, "pairs": pairs}))


def _generate(builder: Builder, prefix: str, last: Iterated) -> _Candidates:
    seen = {"previous": last.instructions} if last.instructions else {}
    raw = builder.share(
        f"{prefix}.instructions", "instructions", {"seeds": last.seeds, "teacher": last.teacher, **seen}
    )
    curated = builder.share(f"{prefix}.curate", "curate", {"instructions": raw, **shown(last)})
    rows = builder.share(f"{prefix}.responses", "responses", {"instructions": curated, "teacher": last.teacher})
    compared = {"instructions": raw, "rows": rows, "reference": PREPARE, **watched(builder)}
    builder.share(f"{prefix}.diversity", "diversity", compared)
    return _Candidates(prefix, curated, rows)


def shown(last: Iterated) -> dict[str, Edge]:
    """Inputs of `curate`: the texts that no new instruction may repeat."""
    return {"seeds": PREPARE} if last.seeds == PREPARE else {"seeds": PREPARE, "shown": last.seeds}


def _warm_up(builder: Builder, candidates: _Candidates, last: Iterated, audits: bool) -> Iterated:
    """The student's checkpoint, and the audit of probes from it unless the recipe leaves that out (`audit.size: 0`)."""
    recipe, prefix = builder.recipe, candidates.prefix
    student: Source = recipe.student
    if recipe.iterate_student == "previous" and last.checkpoint is not None:
        student = last.checkpoint
    checkpoint = builder.share(f"{prefix}.warmup", "warmup", {"student": student, "rows": candidates.rows})
    probe = {"rows": candidates.rows, "checkpoint": checkpoint, "reference": PREPARE}
    return replace(last, checkpoint=checkpoint, audit=_audit(builder, f"{prefix}.audit", probe) if audits else None)


def _score(
    builder: Builder, candidates: _Candidates, signal: Scored, last: Iterated, control_of: tuple[Edge, ...]
) -> Edge:
    """The node of one signal on a round's candidates."""
    recipe = builder.recipe
    inputs: dict[str, Source] = {"rows": candidates.rows}
    if signal == "influence":
        assert last.checkpoint is not None
        inputs |= {"checkpoint": last.checkpoint, "reference": PREPARE}
        inputs |= {"audit": last.audit} if last.audit else {}
    elif signal == "loss":
        assert last.checkpoint is not None
        inputs["student"] = last.checkpoint
    elif signal == "judge":
        inputs["judge"] = recipe.judge_model or last.teacher
    elif control_of:
        inputs["scores"] = control_of[0]
    return builder.share(f"{candidates.prefix}.{signal}", signal, inputs)


def _audit(builder: Builder, name: str, probe: Mapping[str, Source]) -> Edge | None:
    """The node that judges the probes of `influence`."""
    settings = builder.recipe.section("audit")
    if not settings.model_dump()["size"]:
        return None
    # It judges the probes of `influence`, so it probes with their settings.
    probes = builder.recipe.section("influence").model_dump(include=set(type(settings).model_fields))
    return builder.share(name, "audit", probe, settings.model_copy(update=probes))


def _pairs_settings(builder: Builder, method: Method) -> StageSettings:
    """The recipe's, where a compared method can have them."""
    settings: Any = builder.recipe.section("pairs")
    changes: dict[str, Any] = {}
    if method.signal in UNSIGNED and settings.policy == "all":
        changes["policy"] = "best_worst"  # Self-Reward's own; without signs `all` has no pair
    if method.signal == "random":
        changes["least_reliability"] = 0.0  # the control is unreliable: that is its point
    changed: StageSettings = settings.model_copy(update=changes) if changes else settings
    return changed
