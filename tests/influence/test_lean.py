"""Layers whose elementwise parts were exchanged compute what the model's authors wrote."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from stages.influence.lean import normed, rotated, use_lean_layers
from tests.influence.builders import llama
from tests.influence.test_arrangement import STUDENTS

LAYERS = 2


def test_the_norm_and_its_gradients_are_transformers_own() -> None:
    torch.manual_seed(0)
    theirs = LlamaRMSNorm(16, eps=1e-3)
    torch.nn.init.normal_(theirs.weight)
    weight = theirs.weight.detach().clone().requires_grad_()
    hidden, grad = torch.randn(3, 5, 16), torch.randn(3, 5, 16)
    one, other = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    theirs(one).backward(grad)
    out = normed(other, weight, 1e-3)
    out.backward(grad)
    torch.testing.assert_close(out, theirs(one))
    torch.testing.assert_close(other.grad, one.grad)
    torch.testing.assert_close(weight.grad, theirs.weight.grad)


def test_the_rotation_and_its_gradients_are_transformers_own() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 7, 4, 8).transpose(1, 2), torch.randn(2, 7, 2, 8).transpose(1, 2)
    cos, sin = torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    found = []
    for rotate in (apply_rotary_pos_emb, rotated):
        q, k = query.clone().requires_grad_(), key.clone().requires_grad_()
        outs = rotate(q, k, cos, sin)
        sum((out * torch.arange(out.numel()).view(out.shape)).sum() for out in outs).backward()
        found.append((*outs, q.grad, k.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("student", "exchanged"),
    [
        ("llama", LAYERS * (2 + 1 + 1) + 1),
        ("mistral with a window", LAYERS * (2 + 1 + 1) + 1),
        ("gemma2 with soft caps", LAYERS),  # its norms and its activation are others
        ("gpt2", 0),
    ],
)
def test_only_what_is_recognised_is_exchanged(student: str, exchanged: int) -> None:
    assert use_lean_layers(STUDENTS[student]()) == exchanged


def test_another_model_of_the_class_keeps_its_own_layers() -> None:
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    before = llama()(ids).logits
    use_lean_layers(llama(seed=1))
    assert torch.equal(llama()(ids).logits, before)
