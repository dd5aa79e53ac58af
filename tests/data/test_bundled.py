"""The bundled rows keep the properties that stages/data/README.md promises."""

import json
from pathlib import Path

import pytest

import stages.data
from stages.curate.filters import reason_to_drop
from stages.curate.rouge import RougeIndex, deduplicate

FOLDER = Path(stages.data.__file__).parent
ROWS = {"seeds": 200, "reference": 80}
INSTRUCTION_CHARACTERS = (6, 400)
RESPONSE_WORDS = {"seeds": (20, 70), "reference": (60, 140)}
# 187 SmolLM2 tokens, the longest reference response, are 677 characters: this keeps rows within the contexts
# that the quickstart trains on without a tokenizer in the test.
RESPONSE_CHARACTERS = {"seeds": 400, "reference": 700}
# Of a file's instructions, the share that may begin with the same word.
SAME_OPENING = 0.2

Row = dict[str, str]
both_files = pytest.mark.parametrize("name", ROWS)


def read(name: str) -> list[Row]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


def instructions(name: str) -> list[str]:
    return [row["instruction"] for row in read(name)]


@both_files
def test_there_are_as_many_rows_as_the_readme_says(name: str) -> None:
    assert len(read(name)) == ROWS[name]
    assert f"| `{name}.jsonl` | {ROWS[name]} |" in (FOLDER / "README.md").read_text("utf-8")


@both_files
def test_a_row_is_an_instruction_and_a_response_and_nothing_else(name: str) -> None:
    for row in read(name):
        assert sorted(row) == ["instruction", "response"]
        assert all(isinstance(text, str) and text == text.strip() for text in row.values())


@both_files
def test_every_text_has_a_sensible_length(name: str) -> None:
    shortest, longest = INSTRUCTION_CHARACTERS
    fewest, most = RESPONSE_WORDS[name]
    for row in read(name):
        assert shortest <= len(row["instruction"]) <= longest, row["instruction"]
        assert fewest <= len(row["response"].split()) <= most, row["instruction"]
        assert len(row["response"]) <= RESPONSE_CHARACTERS[name], row["instruction"]


@both_files
def test_every_instruction_would_itself_pass_the_filters_of_curation(name: str) -> None:
    dropped = {text: reason for text in instructions(name) if (reason := reason_to_drop(text))}
    assert dropped == {}


@both_files
@pytest.mark.parametrize("field", ["instruction", "response"])
def test_no_two_rows_of_a_file_are_near_duplicates(name: str, field: str) -> None:
    texts = [row[field] for row in read(name)]
    duplicates = [text for text, found in zip(texts, deduplicate(texts), strict=True) if found]
    assert duplicates == []


def test_no_reference_instruction_is_close_to_a_seed() -> None:
    seeds = RougeIndex(threshold=0.6)
    for instruction in instructions("seeds"):
        seeds.add(instruction)
    assert [text for text in instructions("reference") if seeds.nearest_over(text)] == []


@both_files
def test_instructions_do_not_all_begin_alike(name: str) -> None:
    openings = [text.split()[0].lower() for text in instructions(name)]
    commonest = max(set(openings), key=openings.count)
    assert openings.count(commonest) <= SAME_OPENING * len(openings), commonest


@both_files
def test_every_code_block_is_closed(name: str) -> None:
    for row in read(name):
        assert row["response"].count("```") % 2 == 0, row["instruction"]
