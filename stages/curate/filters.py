"""Which single instructions are dropped before any comparison with others, and the name of the reason.

The filters are Self-Instruct's (arXiv 2212.10560, section 2.2 and its released list of words), with the
lengths that Montessori-Instruct (arXiv 2410.14208) sets, and one more for degenerate sampling loops. They
look at one instruction at a time and know nothing of quality or truth. The first one that applies names the
reason, in the order of `Reason`.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from stages.curate.words import words

# What a model that reads and writes text alone cannot do. "map", "draw" or "file" cost good instructions too
# ("file a complaint"); that is the papers' trade, and a recipe can give its own list.
UNSUITABLE_WORDS = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw",
    "plot", "go to", "video", "videos", "audio", "music", "flowchart", "flowcharts", "diagram", "diagrams",
)  # fmt: skip

_LEAST_REPEATS = 3  # of two words or more: "over and over and over" is speech
_LEAST_REPEATS_OF_ONE_WORD = 4  # "no, no, no" is speech
_LONGEST_LOOP = 40  # words
_LEAST_TRIGRAMS = 12  # fewer say nothing about variety
_LEAST_DISTINCT_TRIGRAMS = 0.5  # share
_STRETCHED_LETTER = re.compile(r"([^\W\d_])\1{5,}")


class Reason(StrEnum):
    """Why an instruction is not kept: the values of the `reason` column of curate's table of dropped rows."""

    UNPARSED = "unparsed"  # the teacher's output held no instruction
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    UNSUITABLE_WORD = "unsuitable_word"
    ODD_FIRST_CHARACTER = "odd_first_character"
    REPETITIVE = "repetitive"
    DUPLICATE = "duplicate"  # ROUGE-L over the threshold: found by stages.curate.rouge, not here
    OVER_MOST_ROWS = "over_most_rows"  # nothing wrong with it: more were kept than asked for


@dataclass(frozen=True)
class Drop:
    """A reason and what it was seen in: the word, the length, the loop."""

    reason: Reason
    detail: str


def reason_to_drop(
    instruction: str | None,
    *,
    least_characters: int = 6,
    most_characters: int = 400,
    unsuitable_words: Sequence[str] = UNSUITABLE_WORDS,
) -> Drop | None:
    """Why this instruction is dropped, or None if every filter lets it pass.

    Lengths count Unicode characters of the stripped instruction, both ends allowed.
    """
    if instruction is None or not instruction.strip():
        return Drop(Reason.UNPARSED, "")
    text = instruction.strip()
    if len(text) < least_characters:
        return Drop(Reason.TOO_SHORT, f"{len(text)} characters")
    if len(text) > most_characters:
        return Drop(Reason.TOO_LONG, f"{len(text)} characters")
    if (word := unsuitable_word(text, unsuitable_words)) is not None:
        return Drop(Reason.UNSUITABLE_WORD, word)
    if has_odd_start(text):
        return Drop(Reason.ODD_FIRST_CHARACTER, text[0])
    if (loop := repetition(text)) is not None:
        return Drop(Reason.REPETITIVE, loop)
    return None


def unsuitable_word(text: str, unsuitable_words: Sequence[str] = UNSUITABLE_WORDS) -> str | None:
    """The first of the words (or phrases) that the text holds as a whole word, in lower case."""
    if not unsuitable_words:
        return None
    found = _any_of(tuple(unsuitable_words)).search(text)
    return found.group().lower() if found else None


def has_odd_start(text: str) -> bool:
    """Whether the text begins with neither a letter nor a digit of any script.

    Self-Instruct drops every first character outside ASCII, which drops whole languages; a letter is fine
    here. So are the inverted marks that open a Spanish sentence, if one follows.
    """
    start = text.lstrip("¿¡")[:1]
    return not start or unicodedata.category(start)[0] not in "LN"


def repetition(text: str) -> str | None:
    """What a degenerate text repeats, or None.

    One letter six times in a row, one word four times, a run of words three times, or, in a text of at least
    14 words, fewer than half of its word trigrams distinct. Numbers may repeat: "Sort 0, 0, 0, 0, 1" is an
    instruction.
    """
    stretched = _STRETCHED_LETTER.search(text)
    if stretched:
        return stretched.group()
    found = words(text)
    for length in range(1, min(_LONGEST_LOOP, len(found) // _LEAST_REPEATS) + 1):
        times = _LEAST_REPEATS_OF_ONE_WORD if length == 1 else _LEAST_REPEATS
        loop = _loop(found, length, times)
        if loop:
            return " ".join(loop)
    trigrams = [three for three in zip(found, found[1:], found[2:], strict=False) if not _numbers(three)]
    distinct = len(set(trigrams))
    if len(trigrams) >= _LEAST_TRIGRAMS and distinct < _LEAST_DISTINCT_TRIGRAMS * len(trigrams):
        return f"{distinct} of {len(trigrams)} word trigrams distinct"
    return None


def _loop(found: list[str], length: int, times: int) -> list[str] | None:
    """The first run of `length` words that occurs `times` times in a row and is not all numbers."""
    same = 0  # how many words in a row equal the word `length` before them
    for place in range(length, len(found)):
        same = same + 1 if found[place] == found[place - length] else 0
        if same >= length * (times - 1):
            loop = found[place - length + 1 : place + 1]
            if not _numbers(loop):
                return loop
    return None


def _numbers(some: Sequence[str]) -> bool:
    return all(word.isnumeric() for word in some)


@lru_cache
def _any_of(unsuitable_words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, unsuitable_words))})\b", re.IGNORECASE)
