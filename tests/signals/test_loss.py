"""The stage `loss` on tiny Llamas: its scores are the model's own losses, of folders and of checkpoints alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store
from stages.contract.task import Input
from stages.signals.rows import COLUMNS
from stages.training.export import changed_share, write_state
from tests.influence.builders import warmed_up
from tests.influence.stages import NO_EMBEDDING, with_a_word_more
from tests.signals.rows import SCORED, candidates, responses
from tests.support import model_input, publish, run_stage


def losses(store: Store, student: Input, shards: int = 1, rows: list[dict[str, object]] | None = None) -> Artifact:
    return run_stage(
        store, "loss", {"chunk_rows": 4}, {"rows": responses(store, rows), "student": student}, shards=shards
    )


def own_loss(model: object, folder: Path, instruction: str, response: str) -> float:
    """Mean nll of a response and its end of turn by the model's own forward pass."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    user = [{"role": "user", "content": instruction}]
    prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = [*prompt, *tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    labels = torch.tensor([-100] * len(prompt) + ids[len(prompt) :])
    with torch.no_grad():
        return float(model(torch.tensor([ids]), labels=labels[None]).loss)  # type: ignore[operator]


def test_a_score_is_the_students_own_mean_loss(file_store: Store, tiny_model: Path) -> None:
    found = losses(file_store, model_input(tiny_model)).table().to_pylist()
    assert [row["response_id"] for row in found] == SCORED and set(COLUMNS.names) <= set(found[0])
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    texts = {row["response_id"]: (row["instruction"], row["response"]) for row in candidates()}
    for row in found[:3]:
        assert row["score"] == pytest.approx(own_loss(model, tiny_model, *texts[row["response_id"]]), rel=1e-4)
        assert row["nll"] == pytest.approx(row["score"] * row["tokens"])


def test_a_warm_up_checkpoint_is_a_student_too(file_store: Store, tiny_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    state = warmed_up(model, steps=3)
    write_state(state, tiny_model, tmp_path / "checkpoint")
    student = publish(file_store, "warmup", folder=tmp_path / "checkpoint")
    found = losses(file_store, student).table().to_pylist()
    row = candidates()[0]
    expected = own_loss(model, tiny_model, row["instruction"], row["response"])
    assert found[0]["score"] == pytest.approx(expected, rel=1e-4)
    untrained = losses(file_store, model_input(tiny_model)).table().to_pylist()
    assert found[0]["score"] != pytest.approx(untrained[0]["score"], rel=1e-5)


def test_moments_are_not_taken_for_the_weights_that_a_second_warm_up_starts_from(
    tiny_model: Path, tmp_path: Path
) -> None:
    state = warmed_up(AutoModelForCausalLM.from_pretrained(tiny_model), steps=3)
    write_state(state, tiny_model, tmp_path / "checkpoint")
    assert changed_share(state.weights, tmp_path / "checkpoint", torch.float32) == 0


def test_two_shards_find_what_one_finds(file_store: Store, tiny_model: Path, tmp_path: Path) -> None:
    stores = (file_store, FileStore(tmp_path / "two"))
    one, two = (losses(store, model_input(tiny_model), 1 + number) for number, store in enumerate(stores))
    assert {row["response_id"]: row["score"] for row in one.table().to_pylist()} == pytest.approx(
        {row["response_id"]: row["score"] for row in two.table().to_pylist()}
    )


def test_a_row_that_cannot_be_scored_keeps_its_place_with_a_reason(file_store: Store, tiny_model: Path) -> None:
    rows: list[dict[str, object]] = [*candidates()]
    rows[1] = {**rows[1], "response": " "}
    found = losses(file_store, model_input(tiny_model), rows=rows).table().to_pylist()
    assert len(found) == len(SCORED)
    assert found[1]["score"] is None and found[1]["reason"].startswith("empty_response")
    assert all(row["score"] is not None for row in [found[0], *found[2:]])


def test_a_row_beyond_the_students_vocabulary_keeps_its_place_with_a_reason(
    file_store: Store, tiny_model: Path, tmp_path: Path
) -> None:
    student = with_a_word_more(tiny_model, tmp_path / "student")
    rows: list[dict[str, object]] = [*candidates()]
    rows[1] = {**rows[1], "response": f"A {NO_EMBEDDING} is."}
    found = losses(file_store, model_input(student), rows=rows).table().to_pylist()
    assert found[1]["score"] is None and found[1]["reason"].startswith("outside_vocabulary")
    assert all(row["score"] is not None for row in [found[0], *found[2:]])


def test_a_prompt_that_fills_the_students_context_keeps_its_place_with_a_reason(
    file_store: Store, tiny_model: Path
) -> None:
    rows: list[dict[str, object]] = [*candidates()]
    rows[1] = {**rows[1], "instruction": "word " * 700}
    settings = {"chunk_rows": 4, "max_tokens": 4096}
    inputs = {"rows": responses(file_store, rows), "student": model_input(tiny_model)}
    found = run_stage(file_store, "loss", settings, inputs).table().to_pylist()
    assert found[1]["score"] is None and found[1]["reason"].startswith("no_response_token_left")


def test_a_student_without_a_tokenizer_is_bad_data(file_store: Store, tiny_model: Path, tmp_path: Path) -> None:
    student = shutil.copytree(tiny_model, tmp_path / "student")
    for path in student.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(StageError, match="not a model that can be loaded") as caught:
        losses(file_store, model_input(student))
    assert caught.value.code == ExitCode.BAD_DATA


def test_what_is_no_model_is_bad_data(file_store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(StageError, match="not a model that can be loaded") as caught:
        losses(file_store, publish(file_store, "sft", folder=tmp_path / "model"))
    assert caught.value.code == ExitCode.BAD_DATA
