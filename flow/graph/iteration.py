"""The rounds of probing and teacher training that `iterations` unrolls to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flow.graph.builder import PREPARE, Builder
from flow.graph.model import Edge, Source


@dataclass(frozen=True)
class Iterated:
    """What the rounds leave: the teacher, and where there was one the last checkpoint, audit and instructions.

    Before the first round the teacher is the recipe's own and there is nothing else.
    """

    teacher: Source
    checkpoint: Edge | None = None
    audit: Edge | None = None
    instructions: Edge | None = None


def iterate(builder: Builder) -> Iterated:
    """All rounds of a recipe, each with the teacher that the one before left."""
    last = Iterated(builder.recipe.teacher)
    for number in range(1, builder.recipe.iterations + 1):
        last = _round(builder, f"it{number}", last)
    return last


def _round(builder: Builder, prefix: str, last: Iterated) -> Iterated:
    recipe = builder.recipe
    seen = {"previous": last.instructions} if last.instructions else {}
    raw = builder.add(f"{prefix}.instructions", "instructions", {"seeds": PREPARE, "teacher": last.teacher, **seen})
    curated = builder.add(f"{prefix}.curate", "curate", {"instructions": raw, "seeds": PREPARE})
    rows = builder.add(f"{prefix}.responses", "responses", {"instructions": curated, "teacher": last.teacher})
    checkpoint = builder.add(f"{prefix}.warmup", "warmup", {"student": recipe.student, "rows": rows})
    probe = {"rows": rows, "checkpoint": checkpoint, "reference": PREPARE}
    audit = _audit(builder, f"{prefix}.audit", probe)
    scores = builder.add(f"{prefix}.influence", "influence", {**probe, **({"audit": audit} if audit else {})})
    means = builder.add(f"{prefix}.aggregate", "aggregate", {"scores": scores, "instructions": curated})
    pairs = builder.add(f"{prefix}.pairs", "pairs", {"scores": means})
    start = recipe.teacher if recipe.iterate_teacher == "base" else last.teacher
    trained = builder.add(f"{prefix}.dpo", "dpo", {"teacher": start, "pairs": pairs})
    return Iterated(trained, checkpoint, audit, curated)


def _audit(builder: Builder, name: str, probe: Mapping[str, Source]) -> Edge | None:
    """The node that judges the probes of `influence`, unless the recipe leaves it out (`audit.size: 0`)."""
    settings = builder.recipe.section("audit")
    if not settings.model_dump()["size"]:
        return None
    # It judges the probes of `influence`, so it probes with their settings.
    probes = builder.recipe.section("influence").model_dump(include=set(type(settings).model_fields))
    return builder.add(name, "audit", probe, settings.model_copy(update=probes))
