"""A prober and its candidates out of a stage's inputs; what `influence` and `audit` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.influence.settings import ProbeSettings

Row = dict[str, Any]


@dataclass(frozen=True)
class Probes:
    """Everything that scores rows: `prober` and the `encoder` of its student's rows."""

    prober: Any
    encoder: Any


def candidate_rows(context: StageContext) -> list[Row]:
    """The usable responses that are not for the warm-up, in order."""
    rows = [row for row in context.table("rows").to_pylist() if row["usable"] and row["split"] != "warmup"]
    if not rows:
        raise bad_data("there is no candidate to score", where=f"{context.task.node}: rows")
    return rows


def load(context: StageContext) -> Probes:
    """Loads the warm-up checkpoint and the probe half of the reference.

    Raises:
        StageError: BAD_DATA for a broken checkpoint or a reference row that cannot be scored.
    """
    import torch
    from transformers import AutoTokenizer

    from stages.influence.examples import Encoder
    from stages.influence.probe import ProbeOptions, Prober
    from stages.influence.state import build_student, load_state

    settings: ProbeSettings = context.settings
    reference = context.table("reference", "probe").to_pylist()
    folder = context.folder("checkpoint")
    with context.meter.phase("load"):
        encoder = Encoder(AutoTokenizer.from_pretrained(folder), settings.max_tokens)
        examples = encoder.encode_reference((row["ref_id"], row["instruction"], row["response"]) for row in reference)
        model = build_student(folder)
        options = ProbeOptions(
            lr=settings.lr,
            baseline=settings.baseline,
            reduction=settings.reduction,
            forward_dtype=settings.forward_dtype,
            attention=settings.attention,
            pack_tokens=settings.pack_tokens,
            chunk=settings.chunk,
            gradient_groups=settings.gradient_groups,
        )
        device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        prober = Prober(model, load_state(folder, model), examples, options, device=device)
    return Probes(prober, encoder)
