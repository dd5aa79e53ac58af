"""Which responses a student should not learn from."""

from __future__ import annotations

from stages.curate.filters import repetition
from stages.generation.request import Completion


def reason_against(completion: Completion, *, keep_truncated: bool) -> str | None:
    """Why a response is not usable: prompt_too_long, empty, truncated or degenerate; None if it is.

    Degenerate is what curate calls repetitive in instructions: a sampling loop. Nothing is said of quality or
    truth.
    """
    if completion.finish_reason == "prompt_too_long":
        return "prompt_too_long"
    if not completion.text.strip():
        return "empty"
    if completion.finish_reason == "length" and not keep_truncated:
        return "truncated"
    return "degenerate" if repetition(completion.text) is not None else None
