"""The prompt's text and its token ids say the same."""

import json
from pathlib import Path

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.generation.prompts import chat, render, templated, untemplated
from stages.instructions.settings import DEFAULT_PREFILL, DEFAULT_TEMPLATE
from tests.support import tiny_llama

PREFILLS = ("", "<instruction>", "Sure: ", " ")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("prefill", PREFILLS)
def test_the_ids_are_those_of_the_text(model: Path, prefill: str) -> None:
    from transformers import AutoTokenizer

    prompt = templated(model)(chat("Name a bird.", "Be brief."), prefill)
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert prompt.token_ids == tuple(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
    assert prompt.text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a bird.<|im_end|>\n"
        f"<|im_start|>assistant\n{prefill}"
    )


def test_a_model_without_chat_template_is_refused(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "model")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "chat_template"}))
    with pytest.raises(StageError, match="no chat template") as caught:
        templated(folder)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_remote_model_gets_messages_only() -> None:
    prompt = untemplated(chat("Name a bird."), "Sure:")
    assert (prompt.text, prompt.token_ids, prompt.prefill) == ("Name a bird.\n\nSure:", None, "Sure:")


def test_the_default_prompt_shows_every_example_once_in_order() -> None:
    examples = ["Name a bird.", "Add 2 and <3>.", 'Say "{{ hello }}".']
    text = render(DEFAULT_TEMPLATE, examples=examples) + render(DEFAULT_PREFILL, examples=examples)
    places = [text.index(example) for example in examples]
    assert places == sorted(places)
    assert all(text.count(example) == 1 for example in examples)
    assert text.endswith("<instruction>")
