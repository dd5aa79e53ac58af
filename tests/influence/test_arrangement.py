"""Packed = padded = one row at a time, and the head in chunks = the head at once."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from bench.influence import flops
from stages.audit.settings import AuditSettings
from stages.contract.errors import ExitCode, StageError
from stages.evaluate.settings import EvaluateSettings
from stages.influence.examples import Example
from stages.influence.head import HeadShape, cross_entropy, head_gradients
from stages.influence.loss import StudentLoss
from stages.influence.packing import pack, pad
from stages.influence.settings import InfluenceSettings
from stages.loss.settings import LossSettings
from tests.influence.builders import VOCABULARY, examples, llama, prober

SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
STUDENTS = {
    "llama": llama,
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=8)),
    "gemma2 with soft caps": lambda: Gemma2ForCausalLM(
        Gemma2Config(**GROUPED, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256)),
}


@pytest.mark.parametrize("student", STUDENTS)
def test_packed_losses_and_gradients_equal_padded_ones(student: str) -> None:
    torch.manual_seed(0)
    packed = StudentLoss(STUDENTS[student](), attention="segments", pack_tokens=64, chunk=7)
    torch.manual_seed(0)
    padded = StudentLoss(STUDENTS[student](), attention="padded", pack_tokens=200)
    rows = examples(12, seed=3)
    assert packed.sums(packed.batches(rows), 12) == pytest.approx(padded.sums(padded.batches(rows), 12), rel=1e-5)
    ours, theirs = _gradient(packed, rows), _gradient(padded, rows)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_losses_are_those_of_the_model_itself() -> None:
    (row,) = examples(1, seed=4)
    model = llama()
    labels = torch.tensor([row.ids]).masked_fill(torch.arange(len(row.ids)) < row.labels_from, -100)
    own = model(torch.tensor([row.ids]), labels=labels).loss
    own.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    loss = StudentLoss(model)
    assert loss.sums(loss.batches([row]), 1)[0] / row.tokens == pytest.approx(own.item(), rel=1e-6)
    for name, gradient in _gradient(loss, [row], weight=1 / row.tokens).items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-4, atol=1e-6)


def flash(query_TQD, key_TKD, value_TKD, ends, _, longest, __, *, scale, window_size, enable_gqa) -> torch.Tensor:
    """torch's varlen_attn as its documentation has it, an example at a time; like the kernel it has no fp32."""
    assert query_TQD.dtype == torch.bfloat16 and window_size == (-1, 0)
    lengths = ends.diff().tolist()
    assert longest == max(lengths)
    found = [
        torch.nn.functional.scaled_dot_product_attention(
            *(each.transpose(0, 1) for each in tensors), is_causal=True, scale=scale, enable_gqa=enable_gqa
        ).transpose(0, 1)
        for tensors in zip(*(each.split(lengths) for each in (query_TQD, key_TKD, value_TKD)), strict=True)
    ]
    return torch.cat(found)


def test_the_variable_length_kernel_gives_the_losses_of_segments(
    state, reference, candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Mock(side_effect=flash)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr("stages.influence.loss.require_varlen", lambda device: None)
    varlen, segments = (
        prober(state, reference, attention=attention, forward_dtype="bfloat16") for attention in ("varlen", "segments")
    )
    assert varlen.exact(candidates[0]).nll == pytest.approx(segments.exact(candidates[0]).nll, rel=1e-2)
    assert kernel.called
    assert varlen.first_order(candidates[0]).score == segments.first_order(candidates[0]).score


def test_the_variable_length_kernel_is_refused_where_there_is_none(state, reference) -> None:
    with pytest.raises(StageError, match="needs a GPU") as caught:
        prober(state, reference, attention="varlen", forward_dtype="bfloat16")
    assert caught.value.code == ExitCode.BAD_SETTINGS
    assert caught.value.hint == "set attention: segments"


@pytest.mark.parametrize("settings", [InfluenceSettings, AuditSettings, EvaluateSettings, LossSettings])
def test_the_variable_length_kernel_is_refused_for_passes_in_fp32(settings) -> None:
    key = "precision" if "precision" in settings.model_fields else "forward_dtype"
    with pytest.raises(ValueError, match=f"varlen needs {key}: bfloat16"):
        settings(attention="varlen")
    assert settings(attention="varlen", **{key: "bfloat16"}).attention == "varlen"


def test_the_floor_counts_no_product_for_looking_an_embedding_up() -> None:
    rows = examples(3, seed=4)
    assert flops(llama(tie=False), rows) == flops(llama(tie=True), rows)


def test_packing_wastes_little_and_loses_no_row() -> None:
    rows = examples(200, seed=6)
    batches = pack(rows, 64)
    assert sorted(r for b in batches for r in b.row_L.unique().tolist()) == list(range(200))
    assert all(b.tokens <= 64 for b in batches)
    computed = sum(b.tokens for b in batches)
    assert computed == sum(len(r.ids) - 1 for r in rows)
    assert len(batches) <= 1.1 * computed / 64
    assert sum(b.tokens for b in pad(rows, 64)) < 1.2 * computed


def test_a_row_longer_than_the_pack_gets_a_pack_of_its_own() -> None:
    batches = pack([Example(tuple(range(50)), 3), Example((1, 2, 3), 1)], 16)
    assert sorted(b.tokens for b in batches) == [2, 49]


def test_another_arrangement_has_the_same_labels() -> None:
    rows = examples(30, seed=7)
    for batches in (
        pack(rows, 64),
        pack(rows, 64, shuffle=1),
        pack(rows, 100, shuffle=2),
        pad(rows, 64, shuffle=3),
    ):
        for index, row in enumerate(rows):
            found = torch.cat([b.labels_L[b.row_L == index] for b in batches]).tolist()
            assert tuple(found) == row.ids[row.labels_from :]
            inputs = torch.cat([b.ids_BT.flatten()[b.label_index_L[b.row_L == index]] for b in batches]).tolist()
            assert tuple(inputs) == row.ids[row.labels_from - 1 : -1]


@pytest.mark.parametrize("shape", [HeadShape(), HeadShape(scale=0.5), HeadShape(scale=2.0, softcap=3.0)])
def test_the_head_in_chunks_equals_autograd_over_all_logits(shape: HeadShape) -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(23, 8), torch.randn(31, 8), torch.randn(31)
    labels, coefficients = torch.randint(0, 31, (23,)), torch.rand(23)
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    logits = shape.apply(torch.nn.functional.linear(*leaves))
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (nll * coefficients).sum().backward()
    found = head_gradients(hidden, weight, bias, labels, coefficients, chunk=5, shape=shape)
    ours = [found.hidden_LD, found.weight_EVD[0], found.bias_EV[0]]
    torch.testing.assert_close(ours, [leaf.grad for leaf in leaves], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.nll_L, nll.detach())
    for chunk in (1, 4, 23):
        torch.testing.assert_close(cross_entropy(hidden, weight, bias, labels, chunk=chunk, shape=shape), nll.detach())


def test_words_too_rare_to_move_a_running_sum_count_all_the_same() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(4, 64), torch.randn(49_152, 64) * 0.15
    weight[7] = 0.3 * hidden.sum(0)  # has 95 to 99.99 % of the probability, the other words the rest
    labels = torch.tensor([7, 7, 7, 12])
    leaf = hidden.double().requires_grad_()
    torch.nn.functional.cross_entropy(leaf @ weight.double().T, labels, reduction="sum").backward()
    found = head_gradients(hidden, weight, None, labels, torch.ones(4), chunk=4, shape=HeadShape())
    # torch's log_softmax in fp32 errs by 13 % of the second row's.
    torch.testing.assert_close(found.hidden_LD.double(), leaf.grad, rtol=1e-4, atol=1e-7)
    assert ((found.hidden_LD - leaf.grad).norm(dim=1) < 5e-6 * leaf.grad.norm(dim=1)).all()


def test_logits_exist_for_one_chunk_only(monkeypatch: pytest.MonkeyPatch) -> None:
    logits: list[int] = []
    linear = torch.nn.functional.linear
    loss = StudentLoss(llama(), pack_tokens=256, chunk=8)
    head = loss.model.lm_head.weight.untyped_storage().data_ptr()

    def watched(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if weight.untyped_storage().data_ptr() == head:
            logits.append(len(x) * len(weight))
        return linear(x, weight, bias)

    monkeypatch.setattr("stages.influence.head.F.linear", watched)
    rows = examples(8, seed=8)
    loss.sums(loss.batches(rows), 8)
    _gradient(loss, rows)
    assert sum(logits) == 2 * VOCABULARY * sum(row.tokens for row in rows) and max(logits) <= 8 * VOCABULARY


def test_the_gradient_of_a_head_of_its_own_is_handed_over_before_the_bodys() -> None:
    loss = StudentLoss(llama(tie=False))
    (batch,) = loss.batches(examples(1, seed=8))
    names: list[str] = []
    loss.gradient(batch, torch.ones(1), lambda name, gradient: names.append(name))
    assert names[0] == "lm_head.weight" and sorted(names) == sorted(dict(loss.model.named_parameters()))


def test_a_head_that_is_not_reproduced_is_refused() -> None:
    model = llama()
    model.lm_head.register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(StageError, match="are not the model's own") as caught:
        StudentLoss(model)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def _gradient(loss: StudentLoss, rows: list[Example], weight: float = 1.0) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}

    def add(name: str, gradient: torch.Tensor | None) -> None:
        if gradient is not None:
            total[name] = total.get(name, 0) + gradient

    for batch in loss.batches(rows):
        loss.gradient(batch, torch.full((len(rows),), weight), add)
    return total
