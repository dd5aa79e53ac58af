"""What tests of the stages `audit` and `influence` share: a tiny warm-up checkpoint, reference rows, candidates."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GemmaConfig, GemmaForCausalLM

from stages.contract.store import Store
from stages.contract.task import Input
from stages.influence.examples import Encoder, Example
from tests.influence.builders import warmed_up
from tests.support import CORPUS, publish, tiny_llama

REFERENCE = [
    {"ref_id": f"ref-{number}", "instruction": f"Say it {number} times.", "response": text}
    for number, text in enumerate(CORPUS)
]
NO_LOSS, NO_GRADIENT, NO_EMBEDDING = "glorp", "blick", "twerve"  # words of `sick_checkpoint`
HIDDEN = 32
PROMPTS, INSTRUCTIONS, RESPONSES = 3, 3, 2


def candidates() -> list[dict[str, Any]]:
    """Rows as `responses` makes them: prompts × instructions × responses, and one row for the warm-up."""
    rows = []
    for prompt in range(PROMPTS):
        for instruction in range(INSTRUCTIONS):
            for sample in range(RESPONSES):
                words = CORPUS[(prompt + instruction) % len(CORPUS)].split()
                rows.append(
                    {
                        "response_id": f"r-{prompt}-{instruction}-{sample}",
                        "instruction_id": f"i-{prompt}-{instruction}",
                        "prompt_id": f"p-{prompt}",
                        "instruction": " ".join(words[:4]),
                        "response": " ".join(words[sample : 5 + 2 * sample + prompt]),
                        "usable": True,
                        "split": "candidate",
                    }
                )
    return [*rows, {**rows[0], "response_id": "r-warmup", "split": "warmup"}]


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A Hugging Face folder with θ, m and v after a few steps on the reference's own kind of text."""
    tiny_llama(folder, seed=seed)
    rows = reference_examples(folder)
    warmed_up(AutoModelForCausalLM.from_pretrained(folder), steps=len(rows), rows=rows).save(folder)
    return folder


def sick_checkpoint(folder: Path) -> Path:
    """A checkpoint of finite numbers whose loss is NaN on rows with the word `NO_LOSS`, and its gradient on those with
    `NO_GRADIENT`; of `NO_EMBEDDING` only the tokenizer knows.

    Gemma multiplies embeddings by √hidden, and squares them in its norms: one overflows, the other's derivative does.
    """
    tiny_llama(folder, words=(NO_LOSS, NO_GRADIENT, NO_EMBEDDING))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = GemmaConfig(
        vocab_size=len(tokenizer) - 1,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=False,  # a tied one would reach every logit through the head
    )
    torch.manual_seed(0)
    model = GemmaForCausalLM(config)
    model.save_pretrained(folder)
    rows = reference_examples(folder)
    state = warmed_up(model, steps=len(rows), rows=rows)
    embeddings = state.weights["model.embed_tokens.weight"]
    for word, value in ((NO_LOSS, 3e38), (NO_GRADIENT, 3e38 / math.sqrt(HIDDEN))):
        embeddings[tokenizer.convert_tokens_to_ids(word)] = value
    state.save(folder)
    return folder


def with_a_word_more(model: Path, folder: Path) -> Path:
    """A copy of `model` whose tokenizer knows `NO_EMBEDDING` besides."""
    shutil.copytree(model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([NO_EMBEDDING])
    tokenizer.save_pretrained(folder)
    return folder


def reference_examples(folder: Path) -> list[Example]:
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), 128)
    return encoder.encode_reference((row["ref_id"], row["instruction"], row["response"]) for row in REFERENCE)


def stage_inputs(
    store: Store,
    folder: Path,
    *,
    rows: list[dict[str, Any]] | None = None,
    reference: list[dict[str, Any]] | None = None,
) -> Mapping[str, Input]:
    """The three inputs that both stages have."""
    return {
        "rows": publish(store, "responses", tables={"rows": pa.Table.from_pylist(rows or candidates())}),
        "checkpoint": publish(store, "warmup", folder=folder),
        "reference": publish(store, "prepare", tables={"probe": pa.Table.from_pylist(reference or REFERENCE)}),
    }
