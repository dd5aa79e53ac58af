"""The kinds of answers, and finding one in what a model wrote.

Models bury answers: in bold, behind "So the answer is:", in a sentence, with a full stop, as a word for a number. What
stands behind the last "answer is" or "answer:" counts first; without one, the last thing in the text that could be an
answer of this kind, as far as the kind can be told from prose (a bare "A" cannot). What is not found is None, never a
wrong answer: callers count it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

Kind = Literal["boolean", "yes_no", "labels", "choice", "number", "words", "brackets", "text"]
KINDS: tuple[str, ...] = get_args(Kind)

_MARKER = re.compile(r"\banswer(?:\s+is)?\s*[:=]|\banswer\s+(?:is|would be|must be|should be)\b\s*:?", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-−–]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)|(?<![\w.])[-−–]?\d+(?:\.\d+)?(?!\w)")
_NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_WORDS_FOR_NUMBERS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS)}
_LETTER_IN_PARENTHESES = re.compile(r"\(\s*([A-Za-z])\s*\)|(?<![\w(])([A-Z])\)")
_BARE_LETTER = re.compile(r"(?:option\s+|choice\s+)?([A-Z])(?![\w'’])")
_DECORATION = re.compile(r"[*_`$\"“”]|\\boxed|\\text")
_BRACKETS = "()[]{}<>"


def extract(kind: Kind, output: str, labels: Sequence[str] = ()) -> str | None:
    """The answer in a model's output, in the form that `same` compares; None where there is none.

    Args:
        kind: what the task's answers are.
        labels: for kind `labels`, every answer that the task can have.
    """
    find = _FINDERS[kind]
    text = _DECORATION.sub("", output)
    markers = list(_MARKER.finditer(text))
    for marker in reversed(markers):
        told = _first_line(text[marker.end() :])
        if told and (found := find(told, labels, True)) is not None:
            return found
    return find(text, labels, False)


def same(kind: Kind, found: str | None, answer: str, labels: Sequence[str] = ()) -> bool:
    """Whether an extracted answer is the right one: exact match of what both say."""
    return found is not None and found == normal(kind, answer, labels)


def normal(kind: Kind, answer: str, labels: Sequence[str] = ()) -> str | None:
    """A known answer in the form that `extract` gives; None if it is no answer of this kind."""
    return _FINDERS[kind](answer.strip(), labels, True)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _label(words: Sequence[str], text: str, told: bool) -> str | None:
    """The one label that is told first, or in prose last; the longest where one is in another (valid, invalid)."""
    ordered = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", re.IGNORECASE)
    found = pattern.findall(text)
    return (found[0] if told else found[-1]).lower() if found else None


def _boolean(text: str, _: Sequence[str], told: bool) -> str | None:
    # "not ( True ) is False": in a told line with several, an equation's result stands last.
    found = re.findall(r"(?<!\w)(true|false)(?!\w)", text, re.IGNORECASE)
    if not found:
        return None
    worked_out = told and re.search(r"(?<!\w)(?:not|and|or|=)(?!\w)|=", text, re.IGNORECASE)
    return str(found[0] if told and not worked_out else found[-1]).lower()


def _yes_no(text: str, _: Sequence[str], told: bool) -> str | None:
    return _label(("yes", "no"), text, told)


def _labels(text: str, labels: Sequence[str], told: bool) -> str | None:
    return _label(labels, text, told) if labels else None


def _choice(text: str, _: Sequence[str], told: bool) -> str | None:
    inside = [one or other for one, other in _LETTER_IN_PARENTHESES.findall(text)]
    if inside:
        return (inside[0] if told else inside[-1]).upper()
    if not told:
        # Only where nothing but a letter was written: "A" opens sentences.
        alone = re.fullmatch(r"\W*([A-Za-z])\W*", text)
        return alone.group(1).upper() if alone else None
    bare = _BARE_LETTER.match(text)
    return bare.group(1) if bare else None


def _number(text: str, _: Sequence[str], told: bool) -> str | None:
    digits = [(match.start(), match.group()) for match in _NUMBER.finditer(text)]
    words = [
        (match.start(), _WORDS_FOR_NUMBERS[match.group().lower()])
        for match in re.finditer(r"[A-Za-z]+", text)
        if match.group().lower() in _WORDS_FOR_NUMBERS
    ]
    found = sorted(digits + (words if told or not digits else []))
    if not found:
        return None
    # "12 + 3 = 15": what an equation comes to stands last.
    value = found[0][1] if told and "=" not in text else found[-1][1]
    return _plain_number(value)


def _plain_number(text: str) -> str:
    digits = text.replace(",", "").replace("−", "-").replace("–", "-")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    negative, digits = digits.startswith("-"), digits.lstrip("-")
    whole, point, rest = digits.partition(".")
    value = (whole.lstrip("0") or "0") + point + rest
    return f"-{value}" if negative and value != "0" else value


def _words(text: str, _: Sequence[str], told: bool) -> str | None:
    line = text if told else next((each for each in reversed(text.splitlines()) if each.strip()), "")
    line = re.split(r"[.!?](?:\s|$)", line.strip(), maxsplit=1)[0]
    found = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", line.lower())
    return " ".join(found) if found else None


def _brackets(text: str, _: Sequence[str], told: bool) -> str | None:
    line = text if told else next((each for each in reversed(text.splitlines()) if each.strip()), "")
    found = [each for each in line if each in _BRACKETS]
    # Prose has brackets of its own: a line that is mostly something else is not an answer.
    letters = sum(each.isalnum() for each in line)
    return " ".join(found) if found and letters <= len(found) else None


def _text(text: str, _: Sequence[str], told: bool) -> str | None:
    line = text if told else next((each for each in reversed(text.splitlines()) if each.strip()), "")
    found = " ".join(line.lower().split()).strip(" .,:;!?'")
    return found or None


_FINDERS: dict[str, Callable[[str, Sequence[str], bool], str | None]] = {
    "boolean": _boolean,
    "yes_no": _yes_no,
    "labels": _labels,
    "choice": _choice,
    "number": _number,
    "words": _words,
    "brackets": _brackets,
    "text": _text,
}
