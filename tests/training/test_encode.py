"""The token ids that reach the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.training.encode import IGNORED, encode_pairs, encode_rows
from tests.support import CHAT_TEMPLATE

PROMPT = "<|im_start|>user\nmake one<|im_end|>\n<|im_start|>assistant\n<instruction>"
CLOSING = "</instruction>"
ROW = {"instruction": "Count to three.", "response": "1 2 3"}
PAIR = {"prompt": PROMPT, "chosen": "Count to three.", "rejected": "Sing a song."}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_a_row_is_prompt_response_and_end_of_turn_with_loss_after_the_prompt(tokenizer: Any) -> None:
    encoded = encode_rows(tokenizer, [ROW], 200)
    (row,) = encoded.rows
    trained = [label for label in row["labels"] if label != IGNORED]
    prompt = row["input_ids"][: len(row["input_ids"]) - len(trained)]
    assert tokenizer.decode(prompt) == "<|im_start|>user\nCount to three.<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(trained) == "1 2 3<|im_end|>"
    assert row["input_ids"] == prompt + trained
    assert (encoded.tokens, encoded.trained) == ([len(row["input_ids"])], [len(trained)])


def test_a_pair_s_prompt_is_what_generation_was_given_and_nothing_more(tokenizer: Any) -> None:
    (pair,) = encode_pairs(tokenizer, [PAIR], 200, CLOSING).rows
    assert pair["prompt_ids"] == tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(pair["prompt_ids"]) == PROMPT


def test_a_pair_s_outputs_end_as_generation_would(tokenizer: Any) -> None:
    (pair,) = encode_pairs(tokenizer, [PAIR], 200, CLOSING).rows
    assert tokenizer.decode(pair["chosen_ids"]) == "Count to three.</instruction><|im_end|>"
    assert tokenizer.decode(pair["rejected_ids"]) == "Sing a song.</instruction><|im_end|>"


def test_an_output_that_has_its_closing_tag_gets_no_second_one(tokenizer: Any) -> None:
    (pair,) = encode_pairs(tokenizer, [PAIR | {"chosen": "Count.</instruction>"}], 200, CLOSING).rows
    assert tokenizer.decode(pair["chosen_ids"]) == "Count.</instruction><|im_end|>"


def test_a_response_ends_with_the_turn_alone(tokenizer: Any) -> None:
    (pair,) = encode_pairs(tokenizer, [PAIR | {"kind": "response"}], 200, CLOSING).rows
    assert tokenizer.decode(pair["chosen_ids"]) == "Count to three.<|im_end|>"


def test_a_tokenizer_that_adds_a_bos_adds_none_to_a_templated_prompt(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    adding = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )
    bos = ("<|im_start|>", adding.bos_token_id)
    adding.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    assert adding("a")["input_ids"][0] == adding.bos_token_id
    assert encode_pairs(adding, [PAIR], 200, CLOSING).rows == encode_pairs(tokenizer, [PAIR], 200, CLOSING).rows


def test_too_long_a_row_is_dropped_and_counted_and_never_cut(tokenizer: Any) -> None:
    long = {"instruction": "Count.", "response": "1 2 3 " * 40}
    prompt_alone = {"instruction": "Count. " * 60, "response": "1"}
    encoded = encode_rows(tokenizer, [ROW, long, prompt_alone, {"instruction": "Count.", "response": " "}], 100)
    assert len(encoded.rows) == 1
    assert encoded.dropped == {"too_long": 2, "empty_response": 1}
    pairs = encode_pairs(tokenizer, [PAIR, PAIR | {"rejected": "Sing! " * 60}], 150, CLOSING)
    assert (len(pairs.rows), pairs.dropped) == (1, {"too_long": 1})


def test_the_first_so_many_rows_that_fit_are_taken_or_it_is_said_that_there_are_fewer(tokenizer: Any) -> None:
    long = {"instruction": "Count.", "response": "1 2 3 " * 40}
    rows = [long, ROW, long, ROW, ROW]
    encoded = encode_rows(tokenizer, rows, 100, most=2)
    assert (len(encoded.rows), encoded.dropped) == (2, {"too_long": 2})
    encoded.check(100, 2)
    with pytest.raises(StageError, match=r"4 rows were asked for and 3 .* 2 too_long") as caught:
        encode_rows(tokenizer, rows, 100, most=4).check(100, 4)
    assert caught.value.code == ExitCode.BAD_DATA


def test_a_pair_of_equal_outputs_teaches_nothing_and_is_dropped(tokenizer: Any) -> None:
    encoded = encode_pairs(tokenizer, [PAIR | {"rejected": PAIR["chosen"]}], 200, CLOSING)
    assert encoded.dropped == {"same_output": 1}


def test_no_row_left_is_bad_data_with_the_reasons(tokenizer: Any) -> None:
    with pytest.raises(StageError, match="no row can be trained on: 1 too_long") as caught:
        encode_rows(tokenizer, [ROW], 12).check(12)
    assert caught.value.code == ExitCode.BAD_DATA
