"""What counts as an instruction in a teacher's output."""

import pytest

from stages.generation.parsing import parse_instruction

TAG = "<instruction>"
OUTPUTS = {
    "a begun turn": (TAG, "Name a bird.</instruction>", "Name a bird.", None),
    "a begun list": (f"{TAG}Add 2 and 3.</instruction>\n{TAG}", " Name a bird.\n</instruction>", "Name a bird.", None),
    "a reason first": ("", f"Birds are missing. {TAG}\nName a bird.\n</instruction> Done.", "Name a bird.", None),
    "the tag opened again": (TAG, f"{TAG}Name a bird.</instruction>", "Name a bird.", None),
    "two at once": (TAG, f"Name a bird.</instruction>\n{TAG}Name a fish.</instruction>", "Name a bird.", None),
    "cut off": (TAG, "Name a", None, "no_closing_tag"),
    "never opened": ("Sure:", "Name a bird.</instruction>", None, "no_opening_tag"),
    "only an example": (f"{TAG}Add 2 and 3.</instruction>", "", None, "no_closing_tag"),
    "nothing inside": (TAG, " \n</instruction>", None, "empty"),
    "nothing at all": (TAG, "", None, "no_closing_tag"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_gives_its_instruction_or_the_reason_for_none(name: str) -> None:
    prefill, output, instruction, reason = OUTPUTS[name]
    assert parse_instruction(output, prefill) == (instruction, reason)
