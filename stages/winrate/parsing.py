"""Finding the verdict in what a judge wrote."""

from __future__ import annotations

import re
from typing import Literal

Verdict = Literal["A", "B", "C"]
_MARK = re.compile(r"\[\[\s*([ABC])\s*\]\]")


def parse_verdict(text: str) -> tuple[Verdict | None, str | None]:
    """(verdict, None), or (None, why there is none).

    A judge may quote the question's own [[A]] while it thinks: the last mark counts, unless the last line holds two
    different ones.
    """
    if not text.strip():
        return None, "empty"
    found = _MARK.findall(text)
    if not found:
        return None, "no_verdict"
    last_line = next(line for line in reversed(text.splitlines()) if _MARK.search(line))
    if len(set(_MARK.findall(last_line))) > 1:
        return None, "several_verdicts"
    verdict: Verdict = found[-1]
    return verdict, None
