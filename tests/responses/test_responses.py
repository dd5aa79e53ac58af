"""The responses stage, with a tiny random Llama and with a server that answers as told."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore
from stages.contract.task import Input
from stages.generation.request import Completion
from stages.responses.usable import reason_against
from tests.generation.inputs import LOCAL, REMOTE, kept, remote
from tests.generation.server import says, serving
from tests.support import model_input, run_stage, tiny_llama

SPLITS = ["warmup", "candidate", "candidate", "train", "train"]
SETTINGS = {
    **LOCAL,
    "samples": 3,
    "warmup_samples": 1,
    "train_samples": 2,
    "chunk_rows": 2,
    "keep_truncated": True,
    "least_usable": 0,
}
LOOP = "again and again, " * 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def inputs(store: FileStore, model: Path) -> dict[str, Input]:
    return {"instructions": kept(store, SPLITS), "teacher": model_input(model)}


def rows(artifact: Any) -> list[dict[str, Any]]:
    return artifact.table().to_pylist()


def test_each_split_gets_its_number_of_responses(store: FileStore, inputs: dict[str, Input]) -> None:
    made = rows(run_stage(store, "responses", SETTINGS, inputs))
    assert Counter(row["split"] for row in made) == {"warmup": 1, "candidate": 6, "train": 4}
    assert len({row["response_id"] for row in made}) == len({row["sampling_seed"] for row in made}) == 11
    assert {row["prompt_id"] for row in made} == {"p00", "p01", "p02"}


def test_sharded_and_whole_give_the_same_rows(tmp_path: Path, model: Path) -> None:
    digests = []
    for shards in (1, 2):
        store = FileStore(tmp_path / str(shards))
        inputs = {"instructions": kept(store, SPLITS), "teacher": model_input(model)}
        digests.append(run_stage(store, "responses", SETTINGS, inputs, shards=shards).manifest.digest)
    assert digests[0] == digests[1]


def test_a_truncated_response_counts_only_where_that_is_wanted(store: FileStore, inputs: dict[str, Input]) -> None:
    # one token is never a whole turn of a model that must end it with another
    settings = {**SETTINGS, "sampling": {"max_tokens": 1}, "keep_truncated": False}
    cut = [row for row in rows(run_stage(store, "responses", settings, inputs)) if row["finish_reason"] == "length"]
    assert cut and not any(row["usable"] for row in cut)
    assert {row["reason"] for row in cut} <= {"truncated", "empty"}


REASONS = {
    "fine": (Completion("A robin.", "stop", 5, 3), None),
    "empty": (Completion(" \n", "stop", 5, 1), "empty"),
    "cut": (Completion("A rob", "length", 5, 3), "truncated"),
    "a loop": (Completion(LOOP, "stop", 5, 20), "degenerate"),
    "no room": (Completion("", "prompt_too_long", 5000, 0), "prompt_too_long"),
}


@pytest.mark.parametrize("name", REASONS)
def test_a_response_is_usable_or_says_why_not(name: str) -> None:
    completion, reason = REASONS[name]
    assert reason_against(completion, keep_truncated=False) == reason


def test_a_truncated_loop_is_a_loop_where_truncation_is_allowed() -> None:
    assert reason_against(Completion(LOOP, "length", 5, 20), keep_truncated=True) == "degenerate"


def test_a_teacher_that_only_loops_stops_the_run_at_the_gate(store: FileStore) -> None:
    settings = {**SETTINGS, "least_usable": 0.5, "gate_after": 4}
    with serving(lambda *_: says(LOOP)) as server, pytest.raises(StageError) as caught:
        run_stage(
            store,
            "responses",
            {**settings, "engine": remote(server.url)},
            {"instructions": kept(store, SPLITS), "teacher": REMOTE},
        )
    assert caught.value.code == ExitCode.GATE
    assert "0 of 4 outputs (0.0%) are usable, and least_usable asks for 50%: 4 degenerate" in str(caught.value)


def test_the_response_is_kept_without_white_space_around_it(store: FileStore) -> None:
    with serving(lambda *_: says("\n A robin. \n")) as server:
        artifact = run_stage(
            store,
            "responses",
            {**SETTINGS, "engine": remote(server.url)},
            {"instructions": kept(store, SPLITS), "teacher": REMOTE},
        )
    assert {row["response"] for row in rows(artifact)} == {"A robin."}
    assert all(row["usable"] for row in rows(artifact))
