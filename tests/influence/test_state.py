"""Checkpoints: read back as written, and each kind of damage named with its file and key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.contract.errors import ExitCode, StageError
from stages.influence.state import AdamState, build_student, load_state
from tests.influence.builders import llama

KEY = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path, state: AdamState) -> Path:
    llama().config.save_pretrained(tmp_path)
    state.save(tmp_path)
    return tmp_path


def test_a_checkpoint_is_read_as_it_was_written(folder: Path, state: AdamState) -> None:
    read = load_state(folder, build_student(folder))
    assert (read.step, read.lr, read.betas, read.eps, read.weight_decay) == (
        8,
        1e-3,
        (0.9, 0.999),
        1e-8,
        0.01,
    )
    for ours, theirs in (
        (read.weights, state.weights),
        (read.exp_avg, state.exp_avg),
        (read.exp_avg_sq, state.exp_avg_sq),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_tied_weight_may_be_there_twice(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "weights.safetensors")
    assert "lm_head.weight" not in load_state(folder, llama()).weights


def spoil(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[KEY][0, 0] = value

    return edit


def zero(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY].zero_()


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[KEY]


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY] = tensors[KEY].T.contiguous()


def round_off(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY] = tensors[KEY].bfloat16()


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.9.mlp.up_proj.weight"] = tensors[KEY].clone()


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("weights.safetensors", spoil(math.nan), f"{KEY}: holds NaN or infinity"),
        ("exp_avg.safetensors", spoil(math.inf), f"{KEY}: holds NaN or infinity"),
        ("exp_avg_sq.safetensors", spoil(-1.0), f"{KEY}: second moments below zero"),
        ("exp_avg_sq.safetensors", zero, f"{KEY}: second moments are zero throughout"),
        ("exp_avg.safetensors", drop, f"{KEY}: missing"),
        ("weights.safetensors", reshape, f"{KEY}: shape \\(32, 48\\), the model's is \\(48, 32\\)"),
        ("exp_avg.safetensors", round_off, f"{KEY}: dtype torch.bfloat16, not float32"),
        ("weights.safetensors", rename, "layers.9.mlp.up_proj.weight: the model has no such parameter"),
    ],
)
def test_a_damaged_tensor_is_named_with_its_file(folder: Path, file: str, edit: Callable, message: str) -> None:
    tensors = load_file(folder / file)
    edit(tensors)
    save_file(tensors, folder / file)
    with pytest.raises(StageError, match=f"{file}: .*{message}") as caught:
        load_state(folder, llama())
    assert caught.value.code == ExitCode.BAD_DATA


def test_the_checkpoint_of_a_larger_model_is_refused(folder: Path) -> None:
    from transformers import LlamaForCausalLM

    config = llama().config
    config.num_hidden_layers = 1
    with pytest.raises(StageError, match="checkpoint of another model"):
        load_state(folder, LlamaForCausalLM(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0}, "took no step"),
        ({"step": math.inf}, "not an optimizer's constants"),
        ({"eps": 0.0}, "eps: 0.0 is not a finite number above zero"),
        ({"eps": math.nan}, "eps: nan is not"),
        ({"eps": math.inf}, "eps: inf is not"),
        ({"lr": math.nan}, "lr: nan is not"),
        ({"lr": math.inf}, "lr: inf is not"),
        ({"lr": 0}, "lr: 0 is not a finite number above zero"),
        ({"lr": -1e-5}, "lr: -1e-05 is not"),
        ({"betas": [1, 0.999]}, r"betas: \[1, 0.999\] is not"),
        ({"betas": [0.9, 1.0]}, r"betas: \[0.9, 1.0\] is not"),
        ({"betas": [0.9, 0]}, r"betas: \[0.9, 0\] is not"),
        ({"betas": [math.nan, 0.999]}, "betas: "),
        ({"betas": [-0.1, 0.999]}, "betas: "),
        ({"weight_decay": -0.1}, "weight_decay: -0.1 is not"),
        ({"weight_decay": math.nan}, "weight_decay: nan is not"),
        ({"betas": [0.9]}, "not an optimizer's constants"),
        ({"lr": "fast"}, "not an optimizer's constants"),
        ({"adam_w_mode": False}, "not AdamW"),
    ],
)
def test_constants_that_cannot_be_right_are_refused(folder: Path, change: dict, message: str) -> None:
    path = folder / "optimizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StageError, match=message) as caught:
        load_state(folder, llama())
    assert caught.value.code == ExitCode.BAD_DATA and "optimizer.json" in str(caught.value)


@pytest.mark.parametrize("file", ["weights.safetensors", "exp_avg.safetensors", "optimizer.json"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(StageError, match=f"{file}: cannot be read"):
        load_state(folder, llama())


def test_a_cut_off_file_is_named(folder: Path) -> None:
    path = folder / "exp_avg.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StageError, match=r"exp_avg.safetensors: cannot be read"):
        load_state(folder, llama())


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not a Hugging Face model"):
        build_student(tmp_path)


def test_a_model_that_predicts_no_next_token_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(StageError, match="not a causal language model"):
        build_student(tmp_path)
