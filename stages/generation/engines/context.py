"""How many tokens a model's context holds."""

from __future__ import annotations

from pathlib import Path


def context_length(model: Path) -> int:
    """`max_position_embeddings` of a model folder, or of its text part where it has several."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings)
