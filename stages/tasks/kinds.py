"""The kinds of answers, and finding one in what a model wrote.

Models bury answers: in bold, behind "So the answer is:", in a sentence, with a full stop, as a word for a number. What
stands behind the last "answer is" or "answer:" counts first; without one, the last thing in the text that could be an
answer of this kind, as far as the kind can be told from prose (a bare "A" cannot, nor can words in a sentence). What is
not found is None, never a wrong answer: callers count it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Literal, get_args

Kind = Literal["boolean", "yes_no", "labels", "choice", "number", "words", "brackets", "text"]
KINDS: tuple[str, ...] = get_args(Kind)

_MARKER = re.compile(r"\banswer(?:\s+is)?\s*[:=]|\banswer\s+(?:is|would be|must be|should be)\b\s*:?", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])[-−–]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)|(?<![\w.])[-−–]?\d+(?:\.\d+)?(?!\w)")
_NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS_FOR_NUMBERS = {word: value for value, word in enumerate(_NUMBER_WORDS)}
_WORDS_FOR_NUMBERS |= {word: 10 * place for place, word in enumerate(_TENS, start=2)}
_SPELLED = re.compile(
    rf"\b(?:({'|'.join(_TENS)})[-\s]({'|'.join(_NUMBER_WORDS[1:10])})|({'|'.join(_WORDS_FOR_NUMBERS)}))\b",
    re.IGNORECASE,
)
_OPEN_EQUATION = re.compile(r"=\W*$")  # "2 + 5 =" does not say what it comes to
_LIST_ITEM = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+")
_STAR = re.compile(r"^\s*\*\s+", re.MULTILINE)
_REFUSAL = re.compile(
    r"\b(?:i|we)\s+(?:do\s+not|don['’]t|cannot|can\s*not|can['’]t|am\s+not|are\s+not)\b|\bi['’]m\s+not\b",
    re.IGNORECASE,
)
# Words that make a sentence of a line, where nothing says that it is an answer.
_OF_SENTENCES = re.compile(
    r"\b(?:an?|the|i|we|you|it|is|are|was|were|be|to|of|that|this|these|here|so|not|can|do|does|will|let|us|sorted|order"
    r"|answer|list|words|alphabetical|alphabetically)\b",
    re.IGNORECASE,
)
# A denial in the same clause as the label behind it, and the words between the two.
_DENIED = re.compile(
    r"(?<!\w)(?:(?P<both>neither|nor)|not|never|cannot|\w+n['’]t)"
    r"(?P<between>(?:[ \t]+(?!(?:and|but|so|thus|hence|therefore)\b)\w[\w'’-]*){0,4})[ \t('‘]*\Z|(?<!\w)non-\Z",
    re.IGNORECASE,
)
_TURNS_IT = re.compile(r"(?:\s+(?:an?|the|be|(?!only\b)\w+ly))*\s*", re.IGNORECASE)  # not a logically valid …
_LETTER_IN_PARENTHESES = re.compile(r"\(\s*([A-Za-z])\s*\)|(?<![\w(])([A-Z])\)")
# "A good one" and "I think" begin with a letter too.
_BARE_LETTER = re.compile(
    r"(?:option\s+|choice\s+)?(?:([B-HJ-Z])(?![\w'’])|([AI])(?=\s*(?:$|[^\w\s'’])|\s+(?:because|since|as|is)\b))"
)
_DECORATION = re.compile(r"[*_`$\"“”]|\\boxed|\\text")
_BRACKETS = "()[]{}<>"


def extract(kind: Kind, output: str, labels: Sequence[str] = (), *, complete: bool = True) -> str | None:
    """The answer in a model's output, in the form that `same` compares; None where there is none.

    Args:
        kind: what the task's answers are.
        labels: for kind `labels`, every answer that the task can have.
        complete: whether the model came to its end. Of one that was cut off only an answer that it told counts: what
            stands last is in the middle of its reasoning.
    """
    find = _FINDERS[kind]
    text = _DECORATION.sub("", _STAR.sub("- ", output))
    markers = list(_MARKER.finditer(text))
    for marker in reversed(markers):
        told = _before_refusal(kind, _told(text[marker.end() :]))
        if told and (found := find(told, labels, True)) is not None:
            return found
    if not complete:
        return None
    last = _last_line(text)
    return find(text if _REFUSAL.search(last) is None else _before_refusal(kind, last), labels, False)


def same(kind: Kind, found: str | None, answer: str, labels: Sequence[str] = ()) -> bool:
    """Whether an extracted answer is the right one: exact match of what both say."""
    return found is not None and found == normal(kind, answer, labels)


def normal(kind: Kind, answer: str, labels: Sequence[str] = ()) -> str | None:
    """A known answer in the form that `extract` gives; None if it is no answer of this kind."""
    return _FINDERS[kind](answer.strip(), labels, True)


def _told(text: str) -> str:
    """What is told behind a marker: its first line, or the items of a list that begins there, one after the other."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # "Here is the list:"
        lines = lines[1:]
    items = list(takewhile(_LIST_ITEM.match, lines))
    if len(items) < 2:  # "3. Let me check" is no list
        return lines[0] if lines else ""
    return " ".join(_LIST_ITEM.sub("", item, count=1) for item in items)


def _before_refusal(kind: Kind, line: str) -> str:
    """What a line says before its "I do not know": the answer is there or nowhere. Where any words can be one, it has
    none."""
    refusal = _REFUSAL.search(line)
    if refusal is None:
        return line
    return "" if kind in ("words", "text") else line[: refusal.start()]


def _label(words: Sequence[str], text: str, told: bool) -> str | None:
    """The one label that is told first, or in prose last; the longest where one is in another (valid, invalid)."""
    ordered = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", re.IGNORECASE)
    found = list(pattern.finditer(text))
    return _meant(words, text, found[0] if told else found[-1]) if found else None


def _meant(words: Sequence[str], text: str, found: re.Match[str]) -> str | None:
    """A label as it is said, or the other one of two where it is denied; None where a denial leaves open which."""
    label = found.group().lower()
    others = {word.lower() for word in words} - {label}
    match _denial(text[: found.start()]):
        case None:
            return label
        case "turned" if len(others) == 1:
            return others.pop()
    return None


def _denial(before: str) -> Literal["turned", "open"] | None:
    """What the words before a label make of it: its opposite, or nothing certain; None where they deny nothing."""
    denied = _DENIED.search(before)
    if denied is None:
        return None
    return "turned" if denied["both"] is None and _TURNS_IT.fullmatch(denied["between"] or "") else "open"


def _boolean(text: str, _: Sequence[str], told: bool) -> str | None:
    # "not ( True ) is False": in a told line with several, an equation's result stands last.
    found = list(re.finditer(r"(?<!\w)(?:true|false)(?!\w)", text, re.IGNORECASE))
    if len(found) <= 1:
        return _label(("true", "false"), text, told)
    worked_out = told and re.search(r"(?<!\w)(?:not|and|or|=)(?!\w)|=", text, re.IGNORECASE)
    value = found[0] if told and not worked_out else found[-1]
    # "True and not False", "False, not True": no result stands last.
    return None if _denial(text[: value.start()]) == "turned" else value.group().lower()


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
    return (bare.group(1) or bare.group(2)) if bare else None


def _number(text: str, _: Sequence[str], told: bool) -> str | None:
    digits = [(match.start(), match.group()) for match in _NUMBER.finditer(text)]
    words = [
        (match.start(), str(sum(_WORDS_FOR_NUMBERS[part.lower()] for part in match.groups() if part)))
        for match in _SPELLED.finditer(text)
    ]
    found = sorted(digits + (words if told or not digits else []))
    if not found or _OPEN_EQUATION.search(text):
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
    line = text if told else _last_lines(text)
    # "1. amber 2. oak": numbers of items are no ends of sentences.
    line = re.sub(r"(?:^|\s)\d+[.)]\s", " ", line).strip()
    line = re.split(r"[.!?](?:\s|$)", line, maxsplit=1)[0]
    if "," in line:
        line = re.sub(r"\s+and\s+(?=\S+$)", " ", line)
    found = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", line.lower())
    if not found or (not told and _OF_SENTENCES.search(line)):
        return None
    return " ".join(found)


def _last_line(text: str) -> str:
    return next((each for each in reversed(text.splitlines()) if each.strip()), "")


def _last_lines(text: str) -> str:
    """The last line, or the list that the text ends with."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = list(takewhile(_LIST_ITEM.match, reversed(lines)))
    return " ".join(_LIST_ITEM.sub("", item, count=1) for item in reversed(items)) if items else _last_line(text)


def _brackets(text: str, _: Sequence[str], told: bool) -> str | None:
    line = text if told else _last_line(text)
    found = [each for each in line if each in _BRACKETS]
    # Prose has brackets of its own: a line that is mostly something else is not an answer.
    letters = sum(each.isalnum() for each in line)
    return " ".join(found) if found and letters <= len(found) else None


def _text(text: str, _: Sequence[str], told: bool) -> str | None:
    line = text if told else _last_line(text)
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
