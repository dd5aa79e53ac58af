"""The real small model that comes with a package."""

from pathlib import Path

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.models import builtin

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
RENDERED = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_converted_model_knows_that_paris_follows(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = builtin.find("smollm2", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id is not None
    assert tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == RENDERED
    with torch.no_grad():
        logits_BTV = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    assert tokenizer.decode(logits_BTV[0, -1].argmax()).strip() == "Paris"


def test_a_missing_package_is_named_with_the_way_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "PACKAGE", "a_package_that_is_not_there")
    monkeypatch.setattr(builtin, "installed_folder", lambda name: tmp_path / "absent")
    with pytest.raises(StageError, match="make setup") as raised:
        builtin.find("smollm2", tmp_path / "cache")
    assert raised.value.code == ExitCode.BAD_SETTINGS
