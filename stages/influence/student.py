"""A student by its losses alone, as `loss` and `evaluate` take one: no moments, in any precision."""

from __future__ import annotations

from pathlib import Path

import torch

from stages.influence.attention import Attention
from stages.influence.examples import Encoder, within_context
from stages.influence.loss import StudentLoss
from stages.influence.state import from_pretrained


def open_student(
    folder: Path, *, precision: str, max_tokens: int, attention: Attention, pack_tokens: int
) -> tuple[Encoder, StudentLoss]:
    """The encoder of a student's rows and its losses on them, on a GPU if there is one.

    Args:
        folder: a Hugging Face model with its tokenizer; a warm-up checkpoint is one.
        precision: of the weights, as torch calls it.
        max_tokens: the longest example, where the student's context is not shorter.
        attention, pack_tokens: see `StudentLoss`.

    Raises:
        StageError: BAD_DATA where the folder holds no model, or no tokenizer, that can be loaded; what `Encoder` and
            `StudentLoss` raise.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    problem = "not a model that can be loaded"
    tokenizer = from_pretrained(AutoTokenizer, folder, problem)
    model = from_pretrained(AutoModelForCausalLM, folder, problem, dtype=getattr(torch, precision))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    longest = within_context(model.config, max_tokens)
    encoder = Encoder(tokenizer, longest, model.config.get_text_config().vocab_size)
    return encoder, StudentLoss(model, attention=attention, pack_tokens=pack_tokens)
