"""Finding the instruction in a teacher's output."""

from __future__ import annotations

OPENING, CLOSING = "<instruction>", "</instruction>"


def parse_instruction(output: str, prefill: str = "") -> tuple[str | None, str | None]:
    """(instruction, None), or (None, why there is none), out of what the teacher wrote after a begun turn.

    What stands between the output's first closing tag and the last opening tag before it counts. The opening tag may
    be the last thing in the prefill; a server that does not continue a begun turn opens it again, and a teacher
    without one may give a reason first.
    """
    head, closed, _ = output.partition(CLOSING)
    if not closed:
        return None, "no_closing_tag"
    _, opened, inside = head.rpartition(OPENING)
    if not opened and not prefill.rstrip().endswith(OPENING):
        return None, "no_opening_tag"
    instruction = (inside if opened else head).strip()
    return (instruction, None) if instruction else (None, "empty")
