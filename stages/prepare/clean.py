"""From a raw row to clean text: one form of Unicode, no control characters, no empty fields."""

from __future__ import annotations

import unicodedata
from typing import Any

from stages.prepare.read import BadRow, RawRow, kind
from stages.prepare.settings import Fields

_KEPT_CONTROLS = "\n\t"


def clean_text(text: str) -> str:
    """NFC, line ends as \\n, no control characters (tab and line end stay), no white space around it."""
    lines = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    kept = (char for char in lines if char in _KEPT_CONTROLS or unicodedata.category(char) != "Cc")
    return "".join(kept).strip()


def same_instruction(instruction: str) -> str:
    """The form in which two instructions count as the same: case and white space do not matter."""
    return " ".join(unicodedata.normalize("NFKC", instruction).casefold().split())


def row_texts(row: RawRow, fields: Fields, *, response_needed: bool) -> tuple[str, str | None] | BadRow:
    """(instruction, response) of a row, cleaned; the response is None where a seed has none."""
    try:
        instruction = clean_text(_field(row, fields.instruction))
        if fields.input is not None and row.values.get(fields.input) is not None:
            extra = clean_text(_field(row, fields.input))
            instruction = f"{instruction}\n\n{extra}".strip() if extra else instruction
        response = None
        if response_needed or row.values.get(fields.response) is not None:
            response = clean_text(_field(row, fields.response))
    except _Unusable as error:
        return BadRow(row.line, error.reason, error.detail)
    if not instruction:
        return BadRow(row.line, "empty", f"field {fields.instruction!r} has no text")
    if response_needed and not response:
        return BadRow(row.line, "empty", f"field {fields.response!r} has no text")
    return instruction, response or None


class _Unusable(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _field(row: RawRow, name: str) -> str:
    if name not in row.values:
        there = ", ".join(sorted(map(repr, row.values))) or "no fields"
        raise _Unusable("no_field", f"no field {name!r}; the row has {there}")
    value: Any = row.values[name]
    if not isinstance(value, str):
        raise _Unusable("not_text", f"field {name!r} is {kind(value)}, not text")
    if any("\ud800" <= char <= "\udfff" for char in value):
        # JSON can escape half of a surrogate pair; no UTF-8 file can hold it.
        raise _Unusable("not_utf8", f"field {name!r} holds half of a surrogate pair")
    return value
