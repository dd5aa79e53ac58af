"""Gradients of several examples from one backward pass are those of each alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from stages.influence.loss import StudentLoss
from tests.influence.builders import examples, llama
from tests.influence.test_arrangement import GROUPED, STUDENTS


def padded_word() -> Any:
    model = llama()
    embedding = model.get_input_embeddings()
    embedding.padding_idx = examples(1, seed=3)[0].ids[1]
    return model


def untied() -> Any:
    config = llama().config
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    return type(llama())(config)


def shared_layer() -> Any:
    model = llama()
    model.model.layers[1].mlp = model.model.layers[0].mlp
    return model


def another_norm() -> Any:
    """A module of a kind that is not known, with a weight that no token reaches."""
    model = llama()
    model.model.unread = torch.nn.LayerNorm(4)
    return model


KNOWN: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "untied head": untied,
    "a word that is not learned": padded_word,
    "mistral with a window": STUDENTS["mistral with a window"],
    "qwen2 with biases": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, tie_word_embeddings=True)),
}
UNKNOWN: dict[str, Callable[[], Any]] = {
    "gemma2's norms and embedding": STUDENTS["gemma2 with soft caps"],
    "gpt2's layers": STUDENTS["gpt2"],
    "a layer used twice": shared_layer,
    "another norm": another_norm,
}


def alone(loss: StudentLoss, row: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str, gradient: Tensor | None) -> None:
        assert gradient is not None
        found[name] = gradient.clone()

    (batch,) = loss.batches([row])
    loss.gradient(batch, torch.tensor([1 / row.tokens]), keep)
    return found


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "layers computed again"])
@pytest.mark.parametrize("student", KNOWN)
def test_each_examples_gradient_is_its_own(student: str, checkpointing: bool) -> None:
    torch.manual_seed(0)
    loss = StudentLoss(KNOWN[student](), pack_tokens=200, chunk=7, gradient_checkpointing=checkpointing)
    rows = examples(5, seed=3)
    expected = [alone(loss, row) for row in rows]
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, gradients: Any) -> None:
        assert name not in found
        found[name] = [each.clone() for each in gradients]

    assert loss.apart is not None
    for _ in range(2):  # the room of the first is used again
        found.clear()
        (batch,) = loss.batches(rows)
        nll_L = loss.gradients(batch, torch.tensor([1 / row.tokens for row in rows]), keep)
    order = batch.row_L.unique_consecutive().tolist()
    assert sorted(order) == list(range(5)) and order != list(range(5))
    assert found.keys() == expected[0].keys()
    for name, gradients in found.items():
        for row, gradient in zip(order, gradients, strict=True):
            torch.testing.assert_close(gradient, expected[row][name], rtol=1e-4, atol=1e-7)
    # What was exchanged computes as before where nobody asks for gradients apart.
    sums = loss.sums([batch], 5)
    for row in range(5):
        assert sums[row] == pytest.approx(float(nll_L[batch.row_L == row].double().sum()), rel=1e-5)
    for name, gradient in alone(loss, rows[0]).items():
        torch.testing.assert_close(gradient, expected[0][name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("student", UNKNOWN)
def test_what_is_not_known_is_left_to_one_example_at_a_time(student: str) -> None:
    torch.manual_seed(0)
    assert StudentLoss(UNKNOWN[student]()).apart is None


def test_an_example_that_is_not_finite_leaves_the_others_alone() -> None:
    model = llama()
    rows = examples(3, seed=3)
    (word,) = sorted(set(rows[1].ids[:-1]) - set(rows[0].ids) - set(rows[2].ids))[:1]
    with torch.no_grad():
        model.get_input_embeddings().weight[word] = torch.inf
    torch.manual_seed(0)
    head = torch.nn.Linear(32, model.config.vocab_size, bias=False)
    model.lm_head = head  # of its own, so that the sick word is no one's logit
    loss = StudentLoss(model, pack_tokens=200)
    (batch,) = loss.batches(rows)
    finite: dict[int, bool] = dict.fromkeys(range(3), True)
    order = batch.row_L.unique_consecutive().tolist()

    def look(name: str, gradients: Any) -> None:
        for row, gradient in zip(order, gradients, strict=True):
            finite[row] &= bool(torch.isfinite(gradient).all())

    assert loss.apart is not None
    loss.gradients(batch, torch.ones(3), look)
    assert finite == {0: True, 1: False, 2: True}
