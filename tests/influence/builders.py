"""A warmed-up tiny student and made-up examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stages.influence.examples import Example
from stages.influence.probe import Prober
from stages.influence.results import ProbeOptions
from stages.influence.state import AdamState

VOCABULARY = 97


def llama(*, seed: int = 0, tie: bool = True) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=tie,
        )
    )


def examples(count: int, *, seed: int, shortest: int = 6, longest: int = 40) -> list[Example]:
    """Rows of a small grammar (each token follows from the one before, mostly), so that there is something to learn."""
    dice = random.Random(seed)
    rows = []
    for _ in range(count):
        length = dice.randint(shortest, longest)
        ids = [dice.randrange(VOCABULARY)]
        while len(ids) < length:
            ids.append((3 * ids[-1] + 1) % VOCABULARY if dice.random() < 0.7 else dice.randrange(VOCABULARY))
        rows.append(Example(tuple(ids), dice.randint(1, length - 3)))
    return rows


def warmed_up(
    model: Any,
    *,
    steps: int = 8,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    rows: Sequence[Example] | None = None,
) -> AdamState:
    """θ, m, v after a few steps of torch's AdamW; the model is left with those weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    for example in rows or examples(steps, seed=99):
        labels = torch.tensor([example.ids])
        labels = labels.masked_fill(torch.arange(len(example.ids)) < example.labels_from, -100)
        optimizer.zero_grad()
        model(torch.tensor([example.ids]), labels=labels).loss.backward()
        optimizer.step()
    names = {name: parameter for name, parameter in model.named_parameters()}
    return AdamState(
        weights={name: p.detach().clone() for name, p in names.items()},
        exp_avg={name: optimizer.state[p]["exp_avg"].clone() for name, p in names.items()},
        exp_avg_sq={name: optimizer.state[p]["exp_avg_sq"].clone() for name, p in names.items()},
        step=steps,
        lr=lr,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=weight_decay,
    )


def prober(state: AdamState, reference: Sequence[Example], *, tie: bool = True, **options: Any) -> Prober:
    """A prober over a model that has other weights: it must take the state's."""
    return Prober(llama(seed=1234, tie=tie), state, reference, ProbeOptions(**{"pack_tokens": 64, **options}))
