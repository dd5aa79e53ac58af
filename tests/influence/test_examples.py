"""Rows to token ids: where the mask ends, what closes a turn, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.influence.examples import Encoder, Example, Unusable

INSTRUCTION = "Name a fruit."
# A template whose end of turn is not the tokenizer's EOS, as Gemma's is.
OTHER_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_the_prompt_is_what_generation_sees_and_the_response_is_scored_with_its_end(tokenizer: Any) -> None:
    example = Encoder(tokenizer, 512).encode(INSTRUCTION, "A banana.")
    assert isinstance(example, Example)
    text = tokenizer.decode(example.ids[: example.labels_from])
    assert text == f"<|im_start|>user\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(example.ids[example.labels_from :]) == "A banana.<|im_end|>"
    assert example.tokens == len(tokenizer("A banana.").input_ids) + 1
    assert not example.truncated


def test_a_response_that_repeats_the_prompt_is_masked_by_index(tokenizer: Any) -> None:
    response = "assistant\nassistant\nName a fruit."
    example = Encoder(tokenizer, 512).encode(INSTRUCTION, response)
    assert isinstance(example, Example)
    assert tokenizer.decode(example.ids[example.labels_from :]) == response + "<|im_end|>"


def test_the_templates_own_end_of_turn_is_used(tokenizer: Any) -> None:
    tokenizer.chat_template = OTHER_END
    assert Encoder(tokenizer, 512).end_of_turn == tokenizer.convert_tokens_to_ids("<|endoftext|>")


def test_without_a_template_the_plain_prompt_and_eos_are_used(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    example = Encoder(tokenizer, 512).encode(INSTRUCTION, "A banana.")
    assert isinstance(example, Example)
    assert tokenizer.decode(example.ids) == (f"### Instruction:\n{INSTRUCTION}\n\n### Response:\nA banana.<|im_end|>")


def test_a_long_response_loses_its_end_and_says_so(tokenizer: Any) -> None:
    whole = Encoder(tokenizer, 512).encode(INSTRUCTION, "apple, banana, cherry. " * 9)
    cut = Encoder(tokenizer, 60).encode(INSTRUCTION, "apple, banana, cherry. " * 9)
    assert isinstance(whole, Example) and isinstance(cut, Example)
    assert cut.truncated and cut.ids == whole.ids[:60] and cut.labels_from == whole.labels_from


@pytest.mark.parametrize(
    ("response", "max_tokens", "reason"),
    [
        ("", 512, "empty_response"),
        (" \n\t", 512, "empty_response"),
        ("<|im_end|>", 512, "only_special_tokens"),
        ("<|im_end|><|im_start|>", 512, "only_special_tokens"),
        ("<|im_end|>\n<|im_end|> \n", 512, "only_special_tokens"),
        ("A banana.", 10, "no_response_token_left"),
    ],
)
def test_a_row_that_cannot_be_scored_says_why(tokenizer: Any, response: str, max_tokens: int, reason: str) -> None:
    found = Encoder(tokenizer, max_tokens).encode(INSTRUCTION, response)
    assert isinstance(found, Unusable) and found.reason == reason


def test_special_tokens_around_a_text_leave_it_one(tokenizer: Any) -> None:
    assert isinstance(Encoder(tokenizer, 512).encode(INSTRUCTION, "<|im_start|>\nA<|im_end|>"), Example)


def test_a_token_that_the_student_has_no_embedding_of_is_named(tokenizer: Any) -> None:
    vocabulary = len(tokenizer)
    tokenizer.add_tokens(["glorp"])
    encoder = Encoder(tokenizer, 512, vocabulary)
    found = encoder.encode(INSTRUCTION, "A glorp is.")
    assert isinstance(found, Unusable) and found.reason == "outside_vocabulary"
    assert (
        found.detail
        == f"token 'glorp' is the tokenizer's {vocabulary}, the student's embeddings end at {vocabulary - 1}"
    )
    assert isinstance(encoder.encode(INSTRUCTION, "A banana."), Example)
    with pytest.raises(StageError, match=r"reference row bb: outside_vocabulary.*\(resize the student's") as caught:
        encoder.encode_reference([("aa", INSTRUCTION, "A banana."), ("bb", "A glorp?", "Yes.")])
    assert caught.value.code == ExitCode.BAD_DATA


def test_a_prompt_that_fills_the_limit_but_for_one_token_is_scored_on_that_one(tokenizer: Any) -> None:
    length = len(Encoder(tokenizer, 512).prompt_ids(INSTRUCTION))
    example = Encoder(tokenizer, length + 1).encode(INSTRUCTION, "A banana.")
    assert isinstance(example, Example) and example.tokens == 1 and example.truncated


def test_a_reference_row_that_cannot_be_scored_stops_the_stage(tokenizer: Any) -> None:
    rows = [("aa", INSTRUCTION, "A banana."), ("bb", INSTRUCTION, "<|im_end|>\n<|im_end|>")]
    with pytest.raises(StageError, match="reference row bb: only_special_tokens") as caught:
        Encoder(tokenizer, 512).encode_reference(rows)
    assert caught.value.code == ExitCode.BAD_DATA


def test_an_empty_reference_set_is_refused(tokenizer: Any) -> None:
    with pytest.raises(StageError, match="the reference set is empty"):
        Encoder(tokenizer, 512).encode_reference([])


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    tokenizer.eos_token = None
    with pytest.raises(StageError, match="no end-of-sequence token") as caught:
        Encoder(tokenizer, 512)
    assert caught.value.code == ExitCode.BAD_SETTINGS
