"""What instructions are about, without a model: how they begin, and which words one set has more of than another."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[a-z][a-z'-]+")
# Words that say nothing of a topic.
_NO_TOPIC = """
a about all also an and any are as at be been being but by can could do does for from had has have how i if in into is
it its may me more most must my no not of on one only or other our out over should so some such than that the their them
then there these they this those through to up use used using was we were what when where which while who why will with
would you your
"""
_COMMON = frozenset(_NO_TOPIC.split())
_PRIOR = 0.01  # of a word's share in both sets together: weak, so that it settles rare words only


@dataclass(frozen=True)
class Distinct:
    """A word that one of two sets has more of: by how many standard errors, and in how many texts of each."""

    word: str
    z: float
    before: int
    after: int


def opening(instruction: str) -> str:
    """The word that an instruction begins with: mostly its verb."""
    found = _WORD.search(instruction.lower())
    return found[0] if found else ""


def openings(instructions: Iterable[str]) -> Counter[str]:
    return Counter(filter(None, map(opening, instructions)))


def distinct(before: Sequence[str], after: Sequence[str], most: int) -> list[Distinct]:
    """The words that differ most between two sets of texts, those of `after` first.

    Log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' words"), by the number of
    texts that hold a word, so that one text that repeats itself counts once.
    """
    counts = [Counter(word for text in texts for word in _words(text)) for texts in (before, after)]
    both = counts[0] + counts[1]
    totals = [sum(each.values()) for each in counts]
    if not all(totals):
        return []
    prior_total = _PRIOR * sum(both.values())
    found = []
    for word, number in both.items():
        prior = _PRIOR * number
        odds, variance = [], 0.0
        for each, total in zip(counts, totals, strict=True):
            rest = total + prior_total - each[word] - prior
            if rest <= 0:  # the only word of its set
                break
            odds.append(math.log((each[word] + prior) / rest))
            variance += 1 / (each[word] + prior)
        else:
            found.append(Distinct(word, (odds[1] - odds[0]) / math.sqrt(variance), counts[0][word], counts[1][word]))
    found.sort(key=lambda each: (-each.z, each.word))
    rose = [each for each in found[:most] if each.z > 0]
    fell = [each for each in found[::-1][:most] if each.z < 0]
    return [*rose, *fell]


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.lower()) if word not in _COMMON and len(word) > 2}
