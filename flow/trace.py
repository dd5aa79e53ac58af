"""Where a row of the student's training set comes from, back to seeds, teacher, pairs, scores and checkpoint.

Nothing is recorded for this: rows carry the ids of what they were made from, and artifacts name their inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.text import Text
from rich.tree import Tree

from flow.export import dataset_rows, scoring_node
from stages.contract.artifact import Artifact
from stages.contract.errors import StageError, bad_settings
from stages.contract.store import Store

EXAMPLES = 3
_LEAST_PREFIX = 4
_ID_LENGTH = 16
Row = dict[str, Any]


def trace_row(store: Store, resolved: Mapping[str, Any], row: str) -> Row:
    """The history of one row of the run's data set, as plain values.

    Args:
        row: a response_id, the unambiguous beginning of one, or a row number counted from 0 in dataset/train.parquet.

    Raises:
        StageError: BAD_SETTINGS for a row that is not there, naming near ids or the range of numbers.
    """
    run = _Run(store, resolved)
    rows = dataset_rows(store, resolved)
    number = _number(row, rows["response_id"].to_pylist())
    found = rows.slice(number, 1).to_pylist()[0]
    responses = resolved["outputs"]["dataset"]
    curated = run.source(responses, "instructions")
    assert curated is not None  # responses are made of another node's instructions, always
    return {
        "row": number,
        **{name: found[name] for name in ("response_id", "instruction", "response")},
        "node": responses,
        "sample": found["sample"],
        "sampling_seed": found["sampling_seed"],
        "student": _student(run, resolved, number),
        "influence": _influence(run, resolved, responses, found),
        "instruction_from": _instruction(run, curated, found["instruction_id"]),
        "teacher": _teacher(run, responses),
    }


class _Run:
    """The nodes of a finished run by name."""

    def __init__(self, store: Store, resolved: Mapping[str, Any]) -> None:
        self.store = store
        self.nodes: Mapping[str, Any] = resolved["nodes"]

    def artifact(self, node: str) -> Artifact:
        return Artifact(self.store, self.nodes[node]["key"], self.nodes[node]["digest"])

    def table(self, node: str, name: str = "rows") -> pa.Table:
        return self.artifact(node).table(name)

    def row(self, node: str, column: str, value: str) -> Row:
        table = self.table(node)
        rows: list[Row] = table.filter(pc.equal(table[column], value)).to_pylist()
        assert len(rows) == 1, f"{len(rows)} rows of {node} have {column} {value}"
        return rows[0]

    def source(self, node: str, name: str) -> str | None:
        """The node that an input comes from; None for a model from outside, or no such input."""
        found: str | None = self.nodes[node]["inputs"].get(name, {}).get("node")
        return found

    def model(self, node: str, name: str) -> Row | None:
        """The outside model that an input is."""
        found: Row | None = self.nodes[node]["inputs"].get(name, {}).get("model")
        return found

    def digest(self, node: str) -> str:
        return str(self.nodes[node]["digest"])


def _number(row: str, ids: list[str]) -> int:
    """The row's position in the data set."""
    if row in ids:
        return ids.index(row)
    if row.isdigit() and len(row) < _ID_LENGTH:
        if int(row) < len(ids):
            return int(row)
        raise bad_settings(f"there is no row {row}", hint=f"the data set has rows 0 to {len(ids) - 1}")
    begins = [number for number, each in enumerate(ids) if each.startswith(row)] if len(row) >= _LEAST_PREFIX else []
    if len(begins) == 1:
        return begins[0]
    raise _unknown(row, [ids[number] for number in begins] or _nearest(row, ids), ambiguous=bool(begins))


def _unknown(row: str, near: list[str], *, ambiguous: bool) -> StageError:
    named = ", ".join(near[:EXAMPLES])
    if ambiguous:
        return bad_settings(f"{len(near)} rows begin with {row!r}", hint=f"such as {named}")
    return bad_settings(
        f"the data set has no row {row!r}", hint=f"near it: {named}; or give a row number, counted from 0"
    )


def _nearest(row: str, ids: Iterable[str]) -> list[str]:
    """Ids that differ in the fewest places, those with a longer common beginning first."""

    def distance(each: str) -> tuple[int, int]:
        same = [a == b for a, b in zip(row, each, strict=False)]
        start = same.index(False) if False in same else len(same)
        return abs(len(row) - len(each)) + same.count(False), -start

    return sorted(ids, key=distance)[:EXAMPLES]


def _student(run: _Run, resolved: Mapping[str, Any], number: int) -> Row | None:
    """The student that was trained on the data set, and whether on this row: budget and `sft.rows` take the first."""
    node = resolved["outputs"].get("student")
    if node is None:
        return None
    made = run.artifact(node).manifest
    wanted = made.settings.get("rows")
    if wanted is not None:
        wanted += sum(made.figures.get("dropped", {}).values())  # too long for it, and others taken in their stead
    trained_on = run.source(node, "rows")
    if trained_on is not None and run.nodes[trained_on]["stage"] == "budget":
        wanted = run.artifact(trained_on).manifest.tables["rows"]
    return {
        "node": node,
        "digest": run.digest(node),
        "model": run.model(node, "student"),
        "trained_on_row": wanted is None or number < wanted,
    }


def _influence(run: _Run, resolved: Mapping[str, Any], responses: str, found: Row) -> Row | None:
    node = scoring_node(resolved, responses)
    if node is None or found["influence"] is None:
        return None
    row = run.row(node, "response_id", found["response_id"])
    return {"node": node, **{name: row[name] for name in ("score", "stderr", "method", "noise", "tie")}}


def _instruction(run: _Run, curated: str, instruction_id: str) -> Row:
    """The sample that an instruction was parsed from, its prompt and what stood in that."""
    node = run.source(curated, "instructions")
    assert node is not None
    row = run.row(node, "instruction_id", instruction_id)
    wanted = ("instruction_id", "prompt_id", "sample", "sampling_seed", "output", "prompt")
    return {"node": node, **{name: row[name] for name in wanted}, "examples": _examples(run, node, row["seed_ids"])}


def _examples(run: _Run, node: str, ids: list[str]) -> list[Row]:
    """The instructions shown in a prompt, in order: seeds, or instructions of an earlier iteration."""
    known: dict[str, Row] = {}
    for name, table, column in (("seeds", "seeds", "seed_id"), ("previous", "rows", "instruction_id")):
        source = run.source(node, name)
        if source is None:
            continue
        rows = run.table(source, table)
        rows = rows.filter(pc.is_in(rows[column], pa.array(ids, pa.string()))).select([column, "instruction"])
        for each in rows.to_pylist():
            known[each[column]] = {"id": each[column], "node": source, "instruction": each["instruction"]}
    return [known.get(each, {"id": each, "node": None, "instruction": None}) for each in ids]


def _teacher(run: _Run, node: str) -> Row:
    """The teacher of a node, and what it was trained on; of several iterations each rests on the one before."""
    trained = run.source(node, "teacher")
    if trained is None:
        return {"node": None, "model": run.model(node, "teacher")}
    pairs = run.source(trained, "pairs")
    assert pairs is not None
    return {
        "node": trained,
        "digest": run.digest(trained),
        "pairs": _pairs(run, pairs),
        "scores": _in_context(run, pairs) if run.nodes[pairs]["stage"] == "preferences" else _scores(run, pairs),
        "trained_from": _teacher(run, trained),
    }


def _pairs(run: _Run, node: str) -> Row:
    rows: list[Row] = run.table(node).to_pylist()
    rows.sort(key=lambda row: (-row["gap"], row["pair_id"]))
    shown = ("pair_id", "chosen", "rejected", "chosen_score", "rejected_score", "gap", "gap_stderr", "split")
    gaps = [row["gap"] for row in rows]
    return {
        "node": node,
        "pairs": len(rows),
        "splits": dict(Counter(row["split"] for row in rows)),
        "gap": {"least": min(gaps), "median": median(gaps), "most": max(gaps)} if gaps else None,
        "examples": [{name: row[name] for name in shown} for row in rows[:EXAMPLES]],
    }


def _scores(run: _Run, pairs: str) -> Row:
    """What the pairs' scores were measured with: a judge and chance need neither checkpoint nor reference."""
    means = run.source(pairs, "scores")
    assert means is not None
    node = run.source(means, "scores")
    assert node is not None
    scored = run.table(node)
    methods = Counter(method for method in scored["method"].to_pylist() if method is not None)
    checkpoint = run.source(node, "checkpoint") or run.source(node, "student")
    reference = run.source(node, "reference")
    return {
        "node": node,
        "rows": scored.num_rows,
        "methods": dict(methods),
        "means": {"node": means, "instructions": run.artifact(means).manifest.tables["rows"]},
        "checkpoint": None if checkpoint is None else _checkpoint(run, checkpoint),
        "reference": None if reference is None else _reference(run, reference),
        "audit": _audit(run, node),
    }


def _in_context(run: _Run, pairs: str) -> Row:
    """What ARTE's scores were measured with: a student and its preference set."""
    node = run.source(pairs, "scores")
    assert node is not None
    preference = run.source(node, "preference")
    assert preference is not None
    return {
        "node": node,
        "rows": run.artifact(node).manifest.tables["rows"],
        "student": run.model(node, "student"),
        "preference": {"node": preference, "questions": sum(run.table(preference)["chosen"].to_pylist())},
    }


def _checkpoint(run: _Run, node: str) -> Row:
    return {"node": node, "digest": run.digest(node), "student": run.model(node, "student")}


def _reference(run: _Run, node: str) -> Row:
    ids = run.table(node, "probe")["ref_id"].to_pylist()
    return {"node": node, "rows": len(ids), "ref_ids": ids}


def _audit(run: _Run, scores: str) -> Row | None:
    node = run.source(scores, "audit")
    if node is None:
        return None
    figures = run.artifact(node).manifest.figures
    return {"node": node} | {name: figures.get(name) for name in ("candidates", "spearman", "pearson", "decision")}


def render(trace: Mapping[str, Any]) -> Tree:
    """A trace as a tree for a terminal."""
    tree = Tree(_line(f"row {trace['row']}", trace["response_id"]))
    tree.add(_line("instruction", trace["instruction"]))
    tree.add(_line("response", _short(trace["response"], 300)))
    tree.add(_line("sampled", f"by {trace['node']}, sample {trace['sample']}, seed {trace['sampling_seed']}"))
    if student := trace["student"]:
        used = "was trained on it" if student["trained_on_row"] else "was trained on other rows of this data set"
        tree.add(_line("student", f"{student['node']} {student['digest'][:12]} {used}"))
    if influence := trace["influence"]:
        tree.add(_line("influence", f"{influence['score']:+.3g} ({influence['method']}, {influence['node']})"))
    _add_instruction(tree, trace["instruction_from"])
    _add_teacher(tree, trace["teacher"], "teacher")
    return tree


def _add_instruction(tree: Tree, made: Mapping[str, Any]) -> None:
    sample = f"sample {made['sample']}, seed {made['sampling_seed']}"
    branch = tree.add(_line("instruction from", f"{made['node']}, prompt {made['prompt_id']}, {sample}"))
    branch.add(_line("output", _short(made["output"], 300)))
    branch.add(_line("prompt", _short(made["prompt"], 200)))
    examples = branch.add(_line("shown in the prompt", f"{len(made['examples'])} instructions"))
    for each in made["examples"]:
        examples.add(_line(each["id"], _short(each["instruction"] or "not found", 100)))


def _add_teacher(tree: Tree, teacher: Mapping[str, Any], label: str) -> None:
    if teacher["node"] is None:
        tree.add(_line(label, f"{_model(teacher['model'])}, as it came"))
        return
    branch = tree.add(_line(label, f"{teacher['node']} {teacher['digest'][:12]}"))
    pairs = teacher["pairs"]
    splits = ", ".join(f"{count} {name}" for name, count in sorted(pairs["splits"].items()))
    below = branch.add(_line("trained on", f"{pairs['pairs']} pairs of {pairs['node']} ({splits})"))
    if pairs["gap"]:
        least, middle, most = (pairs["gap"][name] for name in ("least", "median", "most"))
        below.add(_line("gap in score", f"{least:.3g} to {most:.3g}, median {middle:.3g}"))
    for each in pairs["examples"]:
        example = below.add(_line("pair", f"{each['pair_id']}, gap {each['gap']:.3g}"))
        example.add(_line(f"chosen {each['chosen_score']:+.3g}", _short(each["chosen"], 120)))
        example.add(_line(f"rejected {each['rejected_score']:+.3g}", _short(each["rejected"], 120)))
    if "preference" in teacher["scores"]:
        _add_in_context(branch, teacher["scores"])
    else:
        _add_scores(branch, teacher["scores"])
    _add_teacher(branch, teacher["trained_from"], "started from")


def _add_in_context(tree: Tree, scores: Mapping[str, Any]) -> None:
    branch = tree.add(_line("scores", f"{scores['node']}, {scores['rows']} rows (in context)"))
    branch.add(_line("student", _model(scores["student"])))
    preference = scores["preference"]
    branch.add(_line("preference set", f"{preference['questions']} questions of {preference['node']}"))


def _add_scores(tree: Tree, scores: Mapping[str, Any]) -> None:
    methods = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(scores["methods"].items()))
    branch = tree.add(_line("scores", f"{scores['node']}, {scores['rows']} rows ({methods})"))
    if checkpoint := scores["checkpoint"]:
        words = f"{checkpoint['node']} {checkpoint['digest'][:12]}, {_model(checkpoint['student'])}"
        branch.add(_line("student checkpoint", words))
    if reference := scores["reference"]:
        branch.add(_line("reference", f"{reference['rows']} probe rows of {reference['node']}"))
    if audit := scores["audit"]:
        spearman = "unknown" if audit["spearman"] is None else f"{audit['spearman']:.3f}"
        branch.add(_line("audit", f"{audit['node']}, Spearman {spearman} over {audit['candidates']} candidates"))


def _line(label: str, words: str) -> Text:
    return Text.assemble((f"{label} ", "bold"), words)


def _short(text: str, most: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def _model(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "a model of the run"
    dropped = source.get("drop_layers") or ()
    return f"{source['model']} without {len(dropped)} layers" if dropped else str(source["model"])
