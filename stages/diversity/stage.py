"""diversity: generated instructions and their responses → how varied they are, and which repeat an evaluation row.

Diversity of instructions is measured on what the teacher wrote, before `curate` takes duplicates out: afterwards a
collapsed teacher looks like one that wrote little. That of responses is of one response to each instruction, since
those to the same one are alike by nature, and of its beginning, since long texts repeat themselves more. Figures are
published by the stage that fails its gate too: in the message. Questions of a task are alike by its form, so a trained
teacher's are compared with those that the unmodified one drafted (`unmodified`), as many of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.contract.errors import StageError, gate
from stages.contract.tables import make_table
from stages.diversity.contamination import Overlaps
from stages.diversity.measures import Diversity, Kept, kept, measure
from stages.diversity.settings import ALL_TASKS, DiversitySettings
from stages.influence.select import audit_sample

CONTAMINATED = pa.schema(
    [(name, pa.string()) for name in ("response_id", "column", "evaluation", "run")],
)
_ITEMS = "items"  # table of `tasks`
HELDOUT, PROBE = "reference heldout", "reference probe"
_TEXTS = ("instruction", "response", "question", "reference", "turns", "references")


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
        answers = measure(_beginnings(usable, settings), settings.cluster_threshold)
        against = _against_unmodified(context, settings)
        context.progress.advance()
        context.check_stop()
        contaminated = _contaminated(usable, _overlaps(context, settings))
        context.progress.advance()
    by_set = _by_set(context, contaminated)
    # Held-out and evaluation rows are what results rest on; the probe half only shifts scores, and is told apart.
    judged_on = set().union(*(rows for name, rows in by_set.items() if name != PROBE))
    figures = {
        **_figures(found),
        "responses": _figures(answers),
        "rows": len(usable),
        "contaminated": len(judged_on),
        "contaminated_share": len(judged_on) / max(1, len(usable)),
        "contaminated_by": {name: len(rows) for name, rows in by_set.items()},
        "like_probe": len(by_set.get(PROBE, set()) - judged_on),
    }
    if against:
        figures["kept"] = {task: asdict(each) for task, each in against.items()}
    _check_overlap(settings, figures)
    _check_kept(settings, against)
    _check_variety(settings, "instruction", found)
    _check_variety(settings, "response", answers)
    context.meter.count(rows_in=len(rows), rows_kept=len(usable) - len(judged_on))
    context.publish(tables={"contaminated": make_table(contaminated, CONTAMINATED)}, figures=figures)


def _sampled(written: pa.Table, size: int) -> list[str]:
    """Texts by the smallest hashes of their ids: the same ones whatever the shards."""
    texts: dict[str, str] = dict(zip(*(column.to_pylist() for column in written.columns), strict=True))
    return _drawn(texts, size)


def _drawn(texts: Mapping[str, str], size: int) -> list[str]:
    return [texts[name] for name in sorted(audit_sample(texts, size, salt="diversity"))]


def _against_unmodified(context: StageContext, settings: DiversitySettings) -> dict[str, Kept]:
    """By task, and of all: how varied the questions are against as many that the unmodified teacher drafted."""
    if not context.has("unmodified"):
        return {}
    now, then = (_by_task(context, name) for name in ("instructions", "unmodified"))
    sizes = {task: min(len(now[task]), len(then[task]), settings.sample) for task in sorted(now.keys() & then)}
    drawn = {task: (_drawn(now[task], size), _drawn(then[task], size)) for task, size in sizes.items()}
    if not drawn:
        return {}
    both = tuple([text for each in drawn.values() for text in each[side]] for side in (0, 1))
    return {ALL_TASKS: kept(*both), **{task: kept(*each) for task, each in drawn.items()}}


def _by_task(context: StageContext, name: str) -> dict[str, dict[str, str]]:
    """task → id → question."""
    found: dict[str, dict[str, str]] = {}
    for row in context.table(name, columns=("instruction_id", "task", "instruction")).to_pylist():
        if row["instruction"] is not None:
            found.setdefault(row["task"], {})[row["instruction_id"]] = row["instruction"]
    return found


def _beginnings(usable: Iterable[dict[str, Any]], settings: DiversitySettings) -> list[str]:
    first: dict[str, tuple[str, str]] = {}
    for row in usable:
        found = (row["response_id"], row["response"])
        first[row["instruction"]] = min(found, first.get(row["instruction"], found))
    responses = dict(first.values())
    chosen = sorted(audit_sample(responses, settings.sample, salt="diversity"))
    return [" ".join(responses[name].split()[: settings.response_words]) for name in chosen]


def _figures(found: Diversity) -> dict[str, Any]:
    return {**asdict(found), "distinct": {str(n): value for n, value in found.distinct.items()}}


def _overlaps(context: StageContext, settings: DiversitySettings) -> dict[str, Overlaps]:
    """The runs of words of each set: both halves of the reference, and every evaluation set."""
    found = {
        f"reference {part}": Overlaps(settings.overlap_words, _texts(context.table("reference", part)))
        for part in ("heldout", "probe")
        if context.has("reference")
    }
    for name in context.names("evaluation."):
        found[name.removeprefix("evaluation.")] = Overlaps(settings.overlap_words, _texts(_evaluation(context, name)))
    return found


def _evaluation(context: StageContext, name: str) -> pa.Table:
    """The rows of an evaluation set; of tasks the questions that students are tested with."""
    artifact = context.artifact(name)
    if _ITEMS not in artifact.manifest.tables:
        return context.table(name)
    items = artifact.table(_ITEMS)
    return items.filter(pc.equal(items["role"], "test"))


def _texts(table: pa.Table) -> Iterator[str | None]:
    """Every text of a table that a model could have learnt by heart, of several turns each."""
    for column in _TEXTS:
        if column in table.column_names:
            values = table[column]
            yield from (pc.list_flatten(values) if pa.types.is_list(values.type) else values).to_pylist()


def _contaminated(rows: Iterable[dict[str, Any]], sets: Mapping[str, Overlaps]) -> list[dict[str, Any]]:
    return [
        {"response_id": row["response_id"], "column": column, "evaluation": name, "run": run}
        for row in rows
        for name, overlaps in sets.items()
        for column in ("instruction", "response")
        if (run := overlaps.find(row[column])) is not None
    ]


def _by_set(context: StageContext, contaminated: Iterable[dict[str, Any]]) -> dict[str, set[str]]:
    """Ids of the rows that are like one of a set, by set; those without any, too."""
    found: dict[str, set[str]] = {HELDOUT: set(), PROBE: set()} if context.has("reference") else {}
    found |= {name.removeprefix("evaluation."): set() for name in context.names("evaluation.")}
    for row in contaminated:
        found[row["evaluation"]].add(row["response_id"])
    return found


def _check_overlap(settings: DiversitySettings, figures: dict[str, Any]) -> None:
    for name, count in figures["contaminated_by"].items():
        if name == PROBE:
            continue
        heldout = name == HELDOUT
        setting = "most_contaminated" if heldout else "most_in_evaluation"
        share, limit = count / max(1, figures["rows"]), getattr(settings, setting)
        if share > limit:
            rows = "held-out row" if heldout else f"question of {name}"
            raise _gate(
                setting,
                f"{share:.1%} of {figures['rows']} rows share {settings.overlap_words} words in a row with a {rows}, "
                f"which students are judged on, and {limit:.0%} is allowed",
                "look at the seeds (prepare.overlap), or raise diversity.overlap_words",
            )


def _check_kept(settings: DiversitySettings, against: Mapping[str, Kept]) -> None:
    for task, each in against.items():
        for what, share in (("questions", each.distinct_texts), ("pairs of words", each.distinct_pairs)):
            if each.texts >= settings.gate_after and share is not None and share < settings.least_kept:
                told = (
                    f"of {task}, {each.texts} of each, {share:.0%} as many {what} are distinct as in the unmodified "
                    "teacher's"
                )
                raise _collapsed("least_kept", "question", told, settings.least_kept)


def _check_variety(settings: DiversitySettings, text: str, found: Diversity) -> None:
    if found.texts < settings.gate_after:
        return
    pairs = found.distinct[2]
    if pairs is not None and pairs < settings.least_distinct:
        what = f"{pairs:.2f} of all pairs of words are distinct"
        raise _collapsed("least_distinct", text, what, settings.least_distinct)
    if found.self_rouge is not None and found.self_rouge > settings.most_self_rouge:
        what = f"the nearest other {text} has a ROUGE-L of {found.self_rouge:.2f} on average"
        raise _collapsed("most_self_rouge", text, what, settings.most_self_rouge)
    if found.largest_cluster > settings.most_in_one_cluster:
        what = f"one cluster holds {found.largest_cluster:.0%} of the {text}s ({found.clusters} clusters)"
        raise _collapsed("most_in_one_cluster", text, what, settings.most_in_one_cluster)


def _collapsed(setting: str, text: str, what: str, limit: float) -> StageError:
    return _gate(
        setting,
        f"the teacher's {text}s are too alike: {what}, and the limit is {limit:g}",
        "train it less (dpo.beta, dpo.learning_rate, dpo.epochs), sample warmer, or show more seeds",
    )


def _gate(setting: str, message: str, hint: str) -> StageError:
    return gate(message, where=f"diversity.{setting}", hint=hint)
