"""diversity: generated instructions and their responses → how varied they are, and which repeat an evaluation row.

Diversity is measured on what the teacher wrote, before `curate` takes duplicates out: afterwards a collapsed teacher
looks like one that wrote little. Figures are published by the stage that fails its gate too: in the message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.contract.errors import StageError, gate
from stages.contract.tables import make_table
from stages.diversity.contamination import Overlaps
from stages.diversity.measures import Diversity, measure
from stages.diversity.settings import DiversitySettings
from stages.influence.select import audit_sample

CONTAMINATED = pa.schema(
    [(name, pa.string()) for name in ("response_id", "column", "evaluation", "run")],
)
_REFERENCE = ("heldout", "probe")


def run(context: StageContext) -> None:
    settings: DiversitySettings = context.settings
    written = context.table("instructions", columns=("instruction_id", "instruction"))
    written = written.filter(pc.is_valid(written["instruction"]))
    rows = context.table("rows", columns=("response_id", "instruction", "response", "usable")).to_pylist()
    usable = [row for row in rows if row["usable"]]
    context.progress.begin(2, unit="checks", phase="comparing")
    with context.meter.phase("compute"):
        texts = _sampled(written, settings.sample)
        found = measure(texts, settings.cluster_threshold)
        context.progress.advance()
        context.check_stop()
        contaminated = _contaminated(usable, _overlaps(context, settings))
        context.progress.advance()
    names = {row["response_id"] for row in contaminated}
    # Held-out rows are what results rest on; the probe half only shifts scores, and is told apart.
    judged_on = {row["response_id"] for row in contaminated if row["evaluation"] != "reference probe"}
    share = len(judged_on) / len(usable) if usable else 0.0
    figures = {
        **asdict(found),
        "distinct": {str(n): value for n, value in found.distinct.items()},
        "rows": len(usable),
        "contaminated": len(judged_on),
        "contaminated_share": share,
        "like_probe": len(names - judged_on),
    }
    _check(settings, found, share, figures)
    context.meter.count(rows_in=len(rows), rows_kept=len(usable) - len(judged_on))
    context.publish(tables={"contaminated": make_table(contaminated, CONTAMINATED)}, figures=figures)


def _sampled(written: pa.Table, size: int) -> list[str]:
    """Texts by the smallest hashes of their ids: the same ones whatever the shards."""
    texts: dict[str, str] = dict(zip(*(column.to_pylist() for column in written.columns), strict=True))
    return [texts[name] for name in sorted(audit_sample(texts, size, salt="diversity"))]


def _overlaps(context: StageContext, settings: DiversitySettings) -> Overlaps:
    """Held-out and evaluation rows first: a run that both halves of the reference have counts as held out."""
    overlaps = Overlaps(settings.overlap_words)
    for name in context.names("evaluation."):
        table = context.table(name)
        for column in ("instruction", "response", "question", "reference"):
            if column in table.column_names and pa.types.is_string(table.schema.field(column).type):
                overlaps.add(name.removeprefix("evaluation."), table[column].to_pylist())
    for part in _REFERENCE:
        for row in context.table("reference", part).to_pylist():
            overlaps.add(f"reference {part}", (row["instruction"], row["response"]))
    return overlaps


def _contaminated(rows: Iterable[dict[str, Any]], overlaps: Overlaps) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        for column in ("instruction", "response"):
            if (match := overlaps.find(row[column])) is not None:
                evaluation, words = match
                found.append(
                    {"response_id": row["response_id"], "column": column, "evaluation": evaluation, "run": words}
                )
    return found


def _check(settings: DiversitySettings, found: Diversity, share: float, figures: dict[str, Any]) -> None:
    if share > settings.most_contaminated:
        raise _gate(
            "most_contaminated",
            f"{share:.1%} of {figures['rows']} rows share {settings.overlap_words} words in a row with a row that "
            f"students are judged on, and {settings.most_contaminated:.0%} is allowed",
            "look at the seeds (prepare.overlap), or raise diversity.overlap_words",
        )
    if found.texts < settings.gate_after:
        return
    pairs = found.distinct[2]
    if pairs is not None and pairs < settings.least_distinct:
        raise _collapsed("least_distinct", f"{pairs:.2f} of all pairs of words are distinct", settings.least_distinct)
    if found.self_rouge is not None and found.self_rouge > settings.most_self_rouge:
        what = f"an instruction's nearest other one has a ROUGE-L of {found.self_rouge:.2f} on average"
        raise _collapsed("most_self_rouge", what, settings.most_self_rouge)
    if found.largest_cluster > settings.most_in_one_cluster:
        what = f"one cluster holds {found.largest_cluster:.0%} of the instructions ({found.clusters} clusters)"
        raise _collapsed("most_in_one_cluster", what, settings.most_in_one_cluster)


def _collapsed(setting: str, what: str, limit: float) -> StageError:
    return _gate(
        setting,
        f"the teacher's instructions are too alike: {what}, and the limit is {limit:g}",
        "train it less (dpo.beta, dpo.learning_rate, dpo.epochs), sample warmer, or show more seeds",
    )


def _gate(setting: str, message: str, hint: str) -> StageError:
    return gate(message, where=f"diversity.{setting}", hint=hint)
