"""The stage on tiny Llamas: its losses are the models' own, and unusable students and rows are named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from tests.influence.stages import NO_EMBEDDING, with_a_word_more
from tests.support import model_input, publish, run_stage, tiny_llama

ROWS = [
    {"ref_id": "r1", "instruction": "Count from one to ten.", "response": "1 2 3 4 5 6 7 8 9 10."},
    {
        "ref_id": "r2",
        "instruction": "Why is the sky blue?",
        "response": "Short waves scatter more than long ones.",
    },
    {"ref_id": "r3", "instruction": "Name a fruit.", "response": "Apple."},
]


@pytest.fixture
def reference(file_store: Store) -> ArtifactInput:
    return publish(file_store, "prepare", tables={"heldout": pa.Table.from_pylist(ROWS)})


def own_loss(folder: Path, instruction: str, response: str) -> tuple[float, int]:
    """Σ nll and tokens of a response (with its end of turn) by the model's own forward pass, unpacked."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    user = [{"role": "user", "content": instruction}]
    prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = [*prompt, *tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    labels = torch.tensor([-100] * len(prompt) + ids[len(prompt) :])
    tokens = len(ids) - len(prompt)
    with torch.no_grad():
        return model(torch.tensor([ids]), labels=labels[None]).loss.item() * tokens, tokens


def test_losses_are_the_students_own(
    file_store: Store, tiny_model: Path, tmp_path: Path, reference: ArtifactInput
) -> None:
    students = {"base": tiny_model, "tailored": tiny_llama(tmp_path / "other", seed=1)}
    inputs = {f"student.{name}": model_input(folder) for name, folder in students.items()}
    found = run_stage(file_store, "evaluate", {"resamples": 200}, {**inputs, "reference": reference})
    rows = found.table().to_pylist()
    assert [(row["student"], row["ref_id"]) for row in rows] == [
        (student, ref["ref_id"]) for student in students for ref in ROWS
    ]
    for row, ref in zip(rows, ROWS * 2, strict=True):
        nll, tokens = own_loss(students[row["student"]], ref["instruction"], ref["response"])
        assert row["tokens"] == tokens
        assert row["nll"] == pytest.approx(nll, rel=1e-5)
    figures = found.manifest.figures
    mine = [row for row in rows if row["student"] == "base"]
    expected = sum(row["nll"] for row in mine) / sum(row["tokens"] for row in mine)
    assert figures["students"]["base"]["value"] == pytest.approx(expected)
    assert [(each["first"], each["second"]) for each in figures["differences"]] == [("base", "tailored")]
    assert found.manifest.ledger.rows_kept == 2 * len(ROWS)


def test_a_student_that_another_stage_published(file_store: Store, tiny_model: Path, reference: ArtifactInput) -> None:
    student = publish(file_store, "sft", folder=tiny_model)
    settings = {"resamples": 200, "attention": "padded"}
    found = run_stage(file_store, "evaluate", settings, {"student.tailored": student, "reference": reference})
    assert set(found.manifest.figures["students"]) == {"tailored"}


def test_a_folder_that_is_no_model_is_bad_data(file_store: Store, tmp_path: Path, reference: ArtifactInput) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    student = publish(file_store, "sft", folder=tmp_path / "model")
    with pytest.raises(StageError, match="not a model that can be loaded") as caught:
        run_stage(file_store, "evaluate", {}, {"student.broken": student, "reference": reference})
    assert caught.value.code == ExitCode.BAD_DATA


def test_a_reference_row_beyond_the_students_vocabulary_is_named(
    file_store: Store, tiny_model: Path, tmp_path: Path
) -> None:
    student = with_a_word_more(tiny_model, tmp_path / "student")
    rows = [*ROWS, {"ref_id": "new", "instruction": "Say it.", "response": f"A {NO_EMBEDDING} is."}]
    reference = publish(file_store, "prepare", tables={"heldout": pa.Table.from_pylist(rows)})
    with pytest.raises(StageError, match="reference row new: outside_vocabulary") as caught:
        run_stage(file_store, "evaluate", {}, {"student.base": model_input(student), "reference": reference})
    assert caught.value.code == ExitCode.BAD_DATA


def test_a_reference_row_longer_than_the_context_is_named(file_store: Store, tiny_model: Path) -> None:
    rows = [*ROWS, {"ref_id": "long", "instruction": "word " * 700, "response": "Yes."}]
    reference = publish(file_store, "prepare", tables={"heldout": pa.Table.from_pylist(rows)})
    with pytest.raises(StageError, match="reference row long"):
        run_stage(file_store, "evaluate", {}, {"student.base": model_input(tiny_model), "reference": reference})
