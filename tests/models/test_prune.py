"""A pruned model is the original without some layers, and nothing else."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from stages.contract.errors import ExitCode, StageError
from stages.models.settings import ModelSource
from stages.models.source import resolve

DROPPED = (1, 2, 4)
KEPT = (0, 3, 5)
TOKENS_BT = torch.tensor([[1, 2, 3, 4, 5]])


def pruned(folder: Path, cache: Path, drop: tuple[int, ...] = DROPPED) -> Path:
    return resolve(ModelSource(model=str(folder), drop_layers=drop), cache)


def refusal(folder: Path, cache: Path, drop: tuple[int, ...]) -> StageError:
    with pytest.raises(StageError) as raised:
        pruned(folder, cache, drop)
    assert raised.value.code == ExitCode.BAD_SETTINGS
    return raised.value


def test_remaining_layers_equal_the_originals(tiny_llama: Path, tmp_path: Path) -> None:
    original = load_file(tiny_llama / "model.safetensors")
    copy = load_file(pruned(tiny_llama, tmp_path) / "model.safetensors")
    expected = {name: tensor for name, tensor in original.items() if ".layers." not in name}
    for position, layer in enumerate(KEPT):
        old, new = f"model.layers.{layer}.", f"model.layers.{position}."
        expected |= {new + name.removeprefix(old): t for name, t in original.items() if name.startswith(old)}
    assert copy.keys() == expected.keys()
    for name, tensor in copy.items():
        assert torch.equal(tensor, expected[name]), name


def test_the_copy_computes_what_the_original_without_these_layers_computes(tiny_llama: Path, tmp_path: Path) -> None:
    by_hand = LlamaForCausalLM.from_pretrained(tiny_llama)
    by_hand.model.layers = torch.nn.ModuleList(by_hand.model.layers[layer] for layer in KEPT)
    by_hand.config.num_hidden_layers = len(KEPT)
    for position, layer in enumerate(by_hand.model.layers):
        layer.self_attn.layer_idx = position
    copy = AutoModelForCausalLM.from_pretrained(pruned(tiny_llama, tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(copy(TOKENS_BT).logits, by_hand(TOKENS_BT).logits, rtol=0, atol=0)


def test_lists_of_one_entry_a_layer_are_cut_alike(tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "config.json").read_text())
    config |= {"layer_types": ["a", "b", "c", "d", "e", "f"], "eos_token_id": [1, 2, 3, 4, 5, 6]}
    (tiny_llama / "config.json").write_text(json.dumps(config))
    copy = json.loads((pruned(tiny_llama, tmp_path) / "config.json").read_text())
    assert copy == config | {"num_hidden_layers": 3, "layer_types": ["a", "d", "f"]}


def test_files_beside_the_weights_come_along(tiny_llama: Path, tmp_path: Path) -> None:
    folder = pruned(tiny_llama, tmp_path)
    assert {file.name for file in folder.iterdir()} == {file.name for file in tiny_llama.iterdir()}
    assert (folder / "chat_template.jinja").read_text() == (tiny_llama / "chat_template.jinja").read_text()


def test_a_model_in_several_files_is_pruned_file_by_file(tiny_llama: Path, tmp_path: Path) -> None:
    whole = pruned(tiny_llama, tmp_path / "whole")
    sharded = tmp_path / "sharded"
    LlamaForCausalLM.from_pretrained(tiny_llama).save_pretrained(sharded, max_shard_size="8KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    copy = LlamaForCausalLM.from_pretrained(pruned(sharded, tmp_path / "sharded-cache")).state_dict()
    for name, tensor in LlamaForCausalLM.from_pretrained(whole).state_dict().items():
        assert torch.equal(tensor, copy[name]), name


def test_a_layer_beyond_the_last_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    error = refusal(tiny_llama, tmp_path / "cache", (2, 6, 9))
    assert "there is no layer 6" in str(error)
    assert "0 to 5" in str(error)
    assert not (tmp_path / "cache").exists()


def test_dropping_every_layer_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    assert "all 6 layers" in str(refusal(tiny_llama, tmp_path, (0, 1, 2, 3, 4, 5)))


def test_a_model_with_other_names_is_refused_and_leaves_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    weights = load_file(tiny_llama / "model.safetensors")
    renamed = {name.replace("model.layers", "transformer.h"): tensor for name, tensor in weights.items()}
    save_file(renamed, tiny_llama / "model.safetensors", metadata={"format": "pt"})
    assert "cannot be dropped" in str(refusal(tiny_llama, tmp_path / "cache", DROPPED))
    assert list((tmp_path / "cache" / "pruned").iterdir()) == []


def test_a_replaced_model_is_pruned_again(tiny_llama: Path, tmp_path: Path) -> None:
    before = pruned(tiny_llama, tmp_path)
    weights = load_file(tiny_llama / "model.safetensors")
    save_file({n: t + 1 for n, t in weights.items()}, tiny_llama / "model.safetensors", metadata={"format": "pt"})
    after = pruned(tiny_llama, tmp_path)
    assert after != before
    norm = load_file(after / "model.safetensors")["model.norm.weight"]
    assert torch.equal(norm, weights["model.norm.weight"] + 1)


def test_several_processes_at_once_make_one_copy(tiny_llama: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        folders = list(pool.map(pruned, [tiny_llama] * 8, [cache] * 8))
    assert len(set(folders)) == 1
    assert list((cache / "pruned").iterdir()) == [folders[0]]
    LlamaForCausalLM.from_pretrained(folders[0])
