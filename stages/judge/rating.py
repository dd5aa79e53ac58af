"""Finding the rating in a judge's answer. An answer without a valid one has a reason, never a number."""

from __future__ import annotations

import re

_NUMBER = r"([-−+]?\d+(?:[.,]\d+)?)"
# What may stand between the word and the number: "**Score:** 4", "Score = [4]", "Score is: `4`", "score: <4>".
_OPEN = r"[\s*_`\"'\[(<]*"
_LABELLED = re.compile(rf"\bscore\b(?:\s+is)?{_OPEN}[:=]{_OPEN}{_NUMBER}(?=(.{{0,24}}))", re.IGNORECASE | re.DOTALL)
_ALONE = re.compile(rf"{_OPEN}{_NUMBER}(.{{0,24}})", re.DOTALL)
_SCALE = re.compile(r"\s*(?:/|out\s+of)\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
_RANGE = re.compile(r"\s*(?:[-−–—~]|to\b|or\b)\s*\d", re.IGNORECASE)
_AFTER_ALONE = re.compile(r"[\s*_`\"'\])>.]*(?:points?)?[\s*_`\"'\])>.]*", re.IGNORECASE)


def parse_rating(answer: str, most: int) -> tuple[float | None, str | None]:
    """(rating from 0 to `most`, None), or (None, why there is none).

    The last `Score: N` counts, or a number that is the whole answer; `N/5` and `N out of 5` are N where 5 is `most`.
    Reasons: `empty`, `no_score`, `range` ("4-5"), `other_scale` ("8/10"), `out_of_range` ("11/5", "-1").
    """
    if not answer.strip():
        return None, "empty"
    labelled = list(_LABELLED.finditer(answer))
    found = labelled[-1] if labelled else _ALONE.fullmatch(answer.rstrip()) or None
    if found is None:
        return None, "no_score"
    rest = found[2]
    if _RANGE.match(rest):
        return None, "range"
    scale = _SCALE.match(rest)
    if not labelled and not _AFTER_ALONE.fullmatch(rest[scale.end() :] if scale else rest):
        return None, "no_score"
    value = float(found[1].replace(",", ".").replace("−", "-"))
    if scale and float(scale[1]) != most:
        return None, "other_scale"
    return (value, None) if 0 <= value <= most else (None, "out_of_range")
