"""A Llama small enough to be made for each test."""

from pathlib import Path

import pytest

TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}


@pytest.fixture
def tiny_llama(tmp_path: Path) -> Path:
    """A random Llama of 6 layers, with a file beside the weights as a tokenizer would be."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path / "tiny"
    LlamaForCausalLM(LlamaConfig(**TINY)).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder
