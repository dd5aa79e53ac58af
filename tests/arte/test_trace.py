"""A row of an ARTE run is followed to its question's prompt, its teacher's pairs and the scores behind these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from flow.trace import render, trace_row
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from tests.arte.inputs import Row, preference, question_table, questions, rationale_table, rationales, tasks
from tests.support import artifact_input, publish, run_stage

MODEL = {"model": "builtin:smollm2", "revision": None, "drop_layers": []}


def resolved(store: Store) -> Row:
    """What runs/RUN/resolved.json holds of an ARTE run whose last teacher wrote the data."""
    drafts = [
        {**each, "sample": 0, "sampling_seed": 7, "seed_ids": ["even-seed-00"], "output": "even 0?</question>"}
        for each in questions()
    ]
    rows = rationale_table(store, rationales())
    values = [{"response_id": row["response_id"], "score": index / 20} for index, row in enumerate(rationales())]
    scores = publish(store, "incontext", tables={"rows": pa.Table.from_pylist(values)})
    selected = question_table(store, questions())
    pairs = run_stage(store, "preferences", {}, {"scores": scores, "rows": rows, "questions": selected})
    made: dict[str, tuple[ArtifactInput, dict[str, str | None]]] = {
        "tasks": (tasks(store), {}),
        "irt": (preference(store), {"tasks": "tasks"}),
        "it1.rationales": (rows, {}),
        "it1.incontext": (scores, {"rows": "it1.rationales", "preference": "irt", "student": None}),
        "it1.preferences": (artifact_input(pairs), {"scores": "it1.incontext", "rows": "it1.rationales"}),
        "it1.dpo": (publish(store, "dpo"), {"pairs": "it1.preferences", "teacher": None}),
        "tailored.questions": (
            publish(store, "questions", tables={"rows": pa.Table.from_pylist(drafts)}),
            {"seeds": "tasks", "teacher": "it1.dpo"},
        ),
        "tailored.select": (selected, {"instructions": "tailored.questions", "seeds": "tasks"}),
        "tailored.rationales": (rows, {"instructions": "tailored.select", "seeds": "tasks", "teacher": "it1.dpo"}),
    }
    nodes = {
        name: {
            "stage": artifact.key.split("/")[1],
            "key": artifact.key,
            "digest": artifact.digest,
            "inputs": {each: {"node": source} if source else {"model": MODEL} for each, source in inputs.items()},
        }
        for name, (artifact, inputs) in made.items()
    }
    return {"run": "arte", "nodes": nodes, "outputs": {"dataset": "tailored.rationales"}}


def test_a_row_is_followed_to_its_draft_and_to_what_its_teacher_was_trained_on(
    file_store: Store, tmp_path: Path
) -> None:
    found: Any = trace_row(file_store, resolved(file_store), "r-even-0-1")
    assert found["instruction_from"]["node"] == "tailored.questions"
    assert found["instruction_from"]["examples"][0]["instruction"] == "Is 0 even?"
    scores = found["teacher"]["scores"]
    assert (scores["node"], scores["rows"], scores["preference"]) == (
        "it1.incontext", 16, {"node": "irt", "questions": 10}
    )  # fmt: skip
    with (tmp_path / "out").open("w+") as file:
        Console(file=file, width=160).print(render(found))
        file.seek(0)
        shown = file.read()
    assert "10 questions of irt" in shown and "builtin:smollm2" in shown
