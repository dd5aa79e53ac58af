"""The instructions stage, with a tiny random Llama and with a server that answers as told."""

from pathlib import Path
from typing import Any

import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.execute import Outcome, outcome_key
from stages.contract.store import FileStore
from stages.contract.task import Input, write_task
from stages.generation.teacher import Teacher
from tests.generation.inputs import LOCAL, REMOTE, kept, remote, seeds
from tests.generation.server import Answer, refuses, says, serving
from tests.support import make_task, model_input, run_stage, stage_process, start_stage, tiny_llama

SETTINGS = {**LOCAL, "prompts": 6, "samples": 2, "examples": 3, "generated_examples": 1, "chunk_rows": 2}
UNGATED = {**SETTINGS, "least_parsed": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"), length=1024)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


@pytest.fixture
def inputs(store: FileStore, model: Path) -> dict[str, Input]:
    return {"seeds": seeds(store), "teacher": model_input(model)}


def rows(artifact: Any) -> list[dict[str, Any]]:
    return artifact.table().to_pylist()


def test_every_row_tells_how_it_was_made(store: FileStore, inputs: dict[str, Input], model: Path) -> None:
    from transformers import AutoTokenizer

    made = rows(run_stage(store, "instructions", UNGATED, inputs))
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert len(made) == 12
    assert len({row["instruction_id"] for row in made}) == 12
    assert len({row["sampling_seed"] for row in made}) == 12
    assert len({row["prompt_id"] for row in made}) == 6
    for row in made:
        assert [row["seed_ids"].count(each) for each in row["seed_ids"]] == [1, 1, 1]
        assert all(f"Name {int(each[1:])} birds." in row["prompt"] for each in row["seed_ids"])
        assert row["prompt_tokens"] == len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
        assert row["prompt"].endswith("<instruction>")
        assert (row["instruction"] is None) == (row["reason"] is not None)
        assert row["teacher"] == inputs["teacher"].digest


def test_sharded_and_whole_give_the_same_rows(tmp_path: Path, model: Path) -> None:
    digests = []
    for shards in (1, 3):
        store = FileStore(tmp_path / str(shards))
        inputs = {"seeds": seeds(store), "teacher": model_input(model)}
        digests.append(run_stage(store, "instructions", UNGATED, inputs, shards=shards).manifest.digest)
    assert digests[0] == digests[1]


def test_another_seed_draws_other_examples(store: FileStore, inputs: dict[str, Input]) -> None:
    first = rows(run_stage(store, "instructions", UNGATED, inputs))
    other = rows(run_stage(store, "instructions", {**UNGATED, "seed": 1}, inputs))
    assert [row["seed_ids"] for row in first] != [row["seed_ids"] for row in other]


def test_a_killed_shard_goes_on_after_its_last_chunk(tmp_path: Path, model: Path) -> None:
    settings = {**UNGATED, "prompts": 30, "chunk_rows": 1, "sampling": {"max_tokens": 40}}
    store, calm = FileStore(tmp_path / "killed"), FileStore(tmp_path / "calm")
    task = make_task("instructions", settings, {"seeds": seeds(store), "teacher": model_input(model)})
    uri = write_task(store, task)
    process = start_stage(uri)
    try:
        while len(committed := _chunks(store, task.output)) < 3:
            assert process.poll() is None, process.communicate()[1][-2000:]
    finally:
        process.kill()
        process.communicate()
    before = {key: store.get(key) for key in committed}
    assert stage_process(uri).returncode == ExitCode.DONE
    assert {key: store.get(key) for key in before} == before
    undisturbed = run_stage(calm, "instructions", settings, {"seeds": seeds(calm), "teacher": model_input(model)})
    assert Artifact(store, task.output).manifest.digest == undisturbed.manifest.digest


def _chunks(store: FileStore, output: str) -> list[str]:
    return [entry.key for entry in store.list(f"{output}/shard-00000/chunk-") if entry.key.endswith(".json")]


def test_a_teacher_that_keeps_no_format_stops_the_run_at_the_gate(store: FileStore, inputs: dict[str, Input]) -> None:
    task = make_task("instructions", {**SETTINGS, "gate_after": 4}, inputs)
    done = stage_process(write_task(store, task))
    assert done.returncode == ExitCode.GATE
    outcome = Outcome.model_validate_json(store.get(outcome_key(task.run, task.node, 1, 0)))
    assert "0 of 4 outputs (0.0%) are parsed" in outcome.message
    assert "least_parsed asks for 20%: 4 no_closing_tag" in outcome.message
    assert len(_chunks(store, task.output)) == 1


def test_the_gate_waits_for_enough_outputs(store: FileStore, inputs: dict[str, Input]) -> None:
    made = rows(run_stage(store, "instructions", {**SETTINGS, "gate_after": 13}, inputs))
    assert {row["reason"] for row in made} == {"no_closing_tag"}


def test_a_lower_gate_goes_on_from_what_is_committed(
    store: FileStore, inputs: dict[str, Input], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageError, match="0 of 12 outputs"):
        run_stage(store, "instructions", {**SETTINGS, "gate_after": 12}, inputs)
    monkeypatch.setattr(Teacher, "_loaded", property(lambda self: pytest.fail("nothing remains: no engine is needed")))
    made = run_stage(store, "instructions", UNGATED, inputs)
    assert made.manifest.tables["rows"] == 12


def test_the_figures_count_outputs_by_reason(store: FileStore) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        even = body["seed"] % 2 == 0
        return says("<instruction>Name a tree.</instruction>" if even else "I cannot.")

    with serving(answer) as server:
        artifact = run_stage(store, "instructions", _remote(server.url), {"seeds": seeds(store), "teacher": REMOTE})
    made = rows(artifact)
    parsed = [row for row in made if row["instruction"] == "Name a tree."]
    assert 0 < len(parsed) < 12 and all(row["sampling_seed"] % 2 == 0 for row in parsed)
    figures = next(iter(artifact.shards())).figures
    assert figures == {"outputs": 12, "parsed": len(parsed), "reasons": {"no_closing_tag": 12 - len(parsed)}}
    ledger = artifact.manifest.ledger
    assert (ledger.rows_in, ledger.rows_kept, ledger.tokens) == (12, len(parsed), 36)
    assert ledger.device_seconds == 0 and ledger.seconds["wait"] > 0


def test_a_server_that_fails_midway_leaves_what_is_committed(store: FileStore) -> None:
    inputs: dict[str, Input] = {"seeds": seeds(store), "teacher": REMOTE}
    with serving(lambda number, _: says("x") if number < 4 else refuses(401, "no more")) as server:
        task = make_task("instructions", _remote(server.url), inputs)
        with pytest.raises(StageError, match="no more") as caught:
            run_stage(store, "instructions", _remote(server.url), inputs)
    assert caught.value.code == ExitCode.BAD_SETTINGS
    assert len(_chunks(store, task.output)) == 1


def test_two_teachers_share_prompts_and_seeds_but_no_ids(store: FileStore, inputs: dict[str, Input]) -> None:
    other = {**inputs, "teacher": inputs["teacher"].model_copy(update={"digest": "0" * 64})}
    first, second = (rows(run_stage(store, "instructions", UNGATED, each)) for each in (inputs, other))
    for name in ("prompt_id", "sampling_seed", "prompt"):
        assert [row[name] for row in first] == [row[name] for row in second]
    assert not {row["instruction_id"] for row in first} & {row["instruction_id"] for row in second}


def test_examples_of_the_iteration_before_are_shown_where_there_are_enough(
    store: FileStore, inputs: dict[str, Input]
) -> None:
    with_previous = {**inputs, "previous": kept(store, ["train", "candidate"])}
    for row in rows(run_stage(store, "instructions", UNGATED, with_previous)):
        assert sum(each.startswith("i") for each in row["seed_ids"]) == 1
    too_few = {**inputs, "previous": kept(store, ["train"])}
    settings = {**UNGATED, "generated_examples": 2}
    for row in rows(run_stage(store, "instructions", settings, too_few)):
        assert all(each.startswith("s") for each in row["seed_ids"])


def test_too_few_seeds_are_bad_settings(store: FileStore, model: Path) -> None:
    inputs = {"seeds": seeds(store, 2), "teacher": model_input(model)}
    with pytest.raises(StageError, match="shows 3 seeds, and there are 2") as caught:
        run_stage(store, "instructions", UNGATED, inputs)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_prompt_that_does_not_fit_is_a_row_with_the_reason(store: FileStore, inputs: dict[str, Input]) -> None:
    settings = {**UNGATED, "engine": {**LOCAL["engine"], "max_model_len": 16}}
    made = rows(run_stage(store, "instructions", settings, inputs))
    assert {(row["reason"], row["finish_reason"], row["output"]) for row in made} == {
        ("prompt_too_long", "prompt_too_long", "")
    }


def _remote(url: str) -> dict[str, Any]:
    return {**UNGATED, "engine": {**remote(url), "concurrency": 1}}
