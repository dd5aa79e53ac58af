"""The questions, and what a student answers to them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from tests.generation.inputs import LOCAL, REMOTE, remote
from tests.generation.server import Answer, says, serving
from tests.support import artifact_input, model_input, publish, run_stage

TALK = {"question_id": 81, "category": "math", "turns": ["Two and two?", "And twice that?"], "reference": ["4", "8"]}


def written(folder: Path, *rows: Any) -> dict[str, Any]:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"which": "mtbench", "mtbench": {"uri": str(path)}}


def heldout(store: Store) -> ArtifactInput:
    rows = [{"ref_id": f"r{n}", "instruction": f"Name {n} birds.", "response": "No."} for n in range(3)]
    return publish(store, "prepare", tables={"heldout": pa.Table.from_pylist(rows)})


def test_questions_in_mtbenchs_own_form_are_read(file_store: Store, tmp_path: Path) -> None:
    (row,) = run_stage(file_store, "evalset", written(tmp_path, TALK)).table().to_pylist()
    assert row == {
        "question_id": "81", "category": "math", "turns": TALK["turns"], "references": TALK["reference"],
        "difficulty": None,
    }  # fmt: skip


def test_the_difficulty_of_a_question_comes_with_it_into_the_replies(file_store: Store, tmp_path: Path) -> None:
    def questions(name: str, difficulty: Any) -> dict[str, Any]:
        path = tmp_path / name
        path.write_text(json.dumps({"instruction": "Name a bird.", "difficulty": difficulty}) + "\n")
        return {"winrate": {"uri": str(path)}}

    asked = run_stage(file_store, "evalset", questions("alpaca.jsonl", -0.4))
    assert asked.table()["difficulty"].to_pylist() == [-0.4]
    with serving(lambda *_: says("A jay.")) as server:
        inputs: dict[str, Any] = {"questions": artifact_input(asked), "model": REMOTE}
        replies = run_stage(file_store, "replies", {"engine": remote(server.url)}, inputs)
    assert replies.table()["difficulty"].to_pylist() == [-0.4]
    with pytest.raises(StageError, match="line 1: `difficulty` is not a number: 'hard'"):
        run_stage(file_store, "evalset", questions("words.jsonl", "hard"))


def test_questions_in_the_hubs_form_are_read_as_well(file_store: Store, tmp_path: Path) -> None:
    hub = {"prompt_id": 7, "category": "stem", "prompt": ["Why?", "And then?"], "reference": []}
    (row,) = run_stage(file_store, "evalset", written(tmp_path, hub)).table().to_pylist()
    assert (row["question_id"], row["turns"], row["references"]) == ("7", ["Why?", "And then?"], None)


def test_without_a_source_the_held_out_rows_are_asked(file_store: Store) -> None:
    found = run_stage(file_store, "evalset", {"limit": 2}, {"reference": heldout(file_store)}).table().to_pylist()
    assert [row["turns"] for row in found] == [["Name 0 birds."], ["Name 1 birds."]]


def test_our_own_questions_can_be_asked(file_store: Store) -> None:
    found = run_stage(file_store, "evalset", {"which": "mtbench"}).table().to_pylist()
    assert len(found) == 8 and all(len(row["turns"]) == 2 for row in found)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"turns": "One?"}, "`turns` is not a list"),
        ({"turns": ["One?", ""]}, "`turns` is not a list"),
        ({"turns": ["One?"], "reference": ["1", "2"]}, "`reference` is not a list of 1 texts"),
        ([1], "not an object"),
        (TALK, "1 questions have an id"),
    ],
)
def test_a_question_that_cannot_be_asked_is_named(file_store: Store, tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(StageError, match=words) as caught:
        run_stage(file_store, "evalset", written(tmp_path, TALK, row))
    assert caught.value.code == ExitCode.BAD_DATA
    assert "line 2" in str(caught.value) or "have an id" in words


def test_the_second_turn_sees_the_first_and_its_answer(file_store: Store, tmp_path: Path) -> None:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        return says(f"turn {len(body['messages'])}")

    questions = run_stage(file_store, "evalset", written(tmp_path, TALK, {"turns": ["Alone?"]}))
    given = ArtifactInput(key=questions.key, digest=questions.manifest.digest)
    with serving(answer) as server:
        made = run_stage(file_store, "replies", {"engine": remote(server.url)}, {"questions": given, "model": REMOTE})
    found = [(row["question_id"], row["turn"], row["answer"], row["reference"]) for row in made.table().to_pylist()]
    assert found[:2] == [("81", 1, "turn 1", "4"), ("81", 2, "turn 3", "8")]
    assert len(found) == 3 and found[2][1:] == (1, "turn 1", None)
    last = max(server.bodies, key=lambda body: len(body["messages"]))
    assert [each["role"] for each in last["messages"]] == ["user", "assistant", "user"]
    assert {body["temperature"] for body in server.bodies if "Two" in body["messages"][0]["content"]} == {0.0}
    assert {body["temperature"] for body in server.bodies if "Alone" in body["messages"][0]["content"]} == {0.7}


def test_a_base_model_without_a_chat_template_is_asked_in_plain_text(
    file_store: Store, tiny_model: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    (base / "chat_template.jinja").unlink()
    questions = artifact_input(run_stage(file_store, "evalset", written(tmp_path, TALK)))
    inputs: dict[str, Any] = {"questions": questions, "model": model_input(base)}
    settings = {"engine": LOCAL["engine"], "sampling": {"max_tokens": 4}}
    assert run_stage(file_store, "replies", settings, inputs).table()["turn"].to_pylist() == [1, 2]


def test_the_turn_that_a_student_without_end_begins_next_is_no_part_of_its_answer(
    file_store: Store, tmp_path: Path
) -> None:
    own = "A quiz:\nQuestion: What is four?\nQ: And eight?"
    questions = artifact_input(run_stage(file_store, "evalset", written(tmp_path, TALK)))
    with serving(lambda *_: says(f"{own}\n\n### Instruction:\nTwo and three?\n\n### Response:\nFive.")) as server:
        inputs: dict[str, Any] = {"questions": questions, "model": REMOTE}
        made = run_stage(file_store, "replies", {"engine": remote(server.url)}, inputs)
    assert made.table()["answer"].to_pylist() == [own, own]
    assert [body["messages"][1]["content"] for body in server.bodies if len(body["messages"]) > 1] == [own]
