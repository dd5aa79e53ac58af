"""From a row of the student's training set back to seeds, teacher, pairs, scores and checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flow.export import dataset_rows
from flow.trace import render, trace_row
from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store
from tests.report.made_up import MadeUpRun, made_up_run

Finished = tuple[Store, MadeUpRun, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("traced")
    store = FileStore(root / "store")
    run = made_up_run(store, root / "models", prompts=12)
    resolved = run.resolved(dataset="tailored.responses", teacher="it1.dpo", student="tailored.sft")
    return store, run, json.loads(json.dumps(resolved))


def test_a_row_is_followed_to_everything_that_made_it(finished: Finished) -> None:
    store, run, resolved = finished
    wanted = dataset_rows(store, resolved).slice(5, 1).to_pylist()[0]
    found = trace_row(store, resolved, wanted["response_id"])
    assert (found["row"], found["response"], found["sampling_seed"]) == (
        5, wanted["response"], wanted["sampling_seed"],
    )  # fmt: skip
    assert found["student"]["node"] == "tailored.sft" and found["student"]["trained_on_row"] is True
    assert found["influence"]["score"] == pytest.approx(wanted["influence"])

    made = found["instruction_from"]
    (source,) = [
        row
        for row in Artifact(store, run.artifacts["tailored.instructions"].key).table().to_pylist()
        if row["instruction_id"] == wanted["instruction_id"]
    ]
    assert (made["prompt"], made["sampling_seed"]) == (source["prompt"], source["sampling_seed"])
    assert [each["id"] for each in made["examples"]] == source["seed_ids"]
    assert all(each["instruction"].startswith("Seed task") for each in made["examples"])

    teacher = found["teacher"]
    assert (teacher["node"], teacher["digest"]) == ("it1.dpo", run.artifacts["it1.dpo"].digest)
    assert teacher["digest"] == wanted["teacher"]  # the row itself names the same teacher
    assert teacher["pairs"]["pairs"] == sum(teacher["pairs"]["splits"].values()) > 0
    gaps = [each["gap"] for each in teacher["pairs"]["examples"]]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] == teacher["pairs"]["gap"]["most"]
    scores = teacher["scores"]
    assert (scores["node"], scores["checkpoint"]["node"]) == ("it1.influence", "it1.warmup")
    assert scores["checkpoint"]["digest"] == run.artifacts["it1.warmup"].digest
    assert scores["reference"]["rows"] == len(scores["reference"]["ref_ids"]) == 33
    assert scores["audit"]["spearman"] == 0.993
    assert teacher["trained_from"]["model"]["model"] == "builtin:smollm2"


def test_a_row_number_and_the_beginning_of_an_id_will_do(finished: Finished) -> None:
    store, _, resolved = finished
    by_number = trace_row(store, resolved, "0")
    assert trace_row(store, resolved, by_number["response_id"][:12]) == by_number
    json.dumps(by_number, allow_nan=False)


def test_a_baseline_row_has_a_teacher_as_it_came(finished: Finished) -> None:
    store, run, _ = finished
    resolved = run.resolved(dataset="self-instruct.responses", student="self-instruct.sft")
    teacher = trace_row(store, resolved, "3")["teacher"]
    assert teacher["node"] is None and teacher["model"]["model"] == "builtin:smollm2"


def test_a_mistyped_id_names_the_near_ones(finished: Finished) -> None:
    store, _, resolved = finished
    real = trace_row(store, resolved, "7")["response_id"]
    wrong = real[:9] + ("0" if real[9] != "0" else "1") + real[10:]
    with pytest.raises(StageError, match=f"near it: {real}") as caught:
        trace_row(store, resolved, wrong)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_row_number_beyond_the_end_names_the_range(finished: Finished) -> None:
    store, _, resolved = finished
    last = dataset_rows(store, resolved).num_rows - 1
    with pytest.raises(StageError, match=f"rows 0 to {last}"):
        trace_row(store, resolved, str(last + 1))


def test_the_tree_shows_text_as_it_is(finished: Finished, tmp_path: Path) -> None:
    store, _, resolved = finished
    with (tmp_path / "out").open("w+") as file:
        Console(file=file, width=160).print(render(trace_row(store, resolved, "1")))
        file.seek(0)
        shown = file.read()
    assert "Be <brief> & clear." in shown and "it1.warmup" in shown and "33 probe rows of prepare" in shown
    assert "started from builtin:smollm2, as it came" in shown
