"""Finding the grade in what a judge wrote."""

from __future__ import annotations

import re

LEAST, MOST = 1.0, 10.0
_MARK = re.compile(r"\[\[\s*([^\[\]]*?)\s*\]\]")
_ONE_BRACKET = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*\]")
# Of a stated scale: 7/10 is a 7, 11/5 is none of ours.
_GRADE = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?")


def parse_grade(text: str) -> tuple[float | None, str | None]:
    """(grade in [1, 10], None), or (None, why there is none).

    The last [[…]] counts, as a judge may quote the form before; without one the last [5], as FastChat reads it. A grade
    on another scale or outside ours is refused, never cut to fit.
    """
    if not text.strip():
        return None, "empty"
    marked = _MARK.findall(text) or _ONE_BRACKET.findall(text)
    if not marked:
        return None, "no_grade"
    found = _GRADE.fullmatch(marked[-1])
    if found is None:
        return None, "not_a_number"
    if found[2] is not None and float(found[2]) != MOST:
        return None, "another_scale"
    grade = float(found[1])
    return (grade, None) if LEAST <= grade <= MOST else (None, "out_of_range")
