"""Splitting rows in two by prompt, so that nothing generated from one prompt is on both sides.

Prompts are ranked by a hash of the seed and their id and the first ones go to the first side: the split does
not depend on the order of the rows or on the machine, and rows that a prompt gains or loses move no other
prompt but those at the border.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence


def first_side(
    prompt_ids: Sequence[str], *, seed: int, share: float | None = None, rows: int | None = None
) -> frozenset[str]:
    """The prompts of the first side, which is to hold `rows` rows or a `share` (0 to 1) of them.

    `prompt_ids` has one entry a row. Whole prompts are taken in order of their hash as long as that brings
    the number of rows nearer to what is asked. Both sides get at least one prompt if both are asked to have
    rows and there are two. ValueError if not exactly one of share and rows is given, or if it is more than
    there is.
    """
    if (share is None) == (rows is None):
        raise ValueError("give either a share or a number of rows")
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    total = len(prompt_ids)
    if rows is not None and not 0 <= rows <= total:
        raise ValueError(f"{rows} rows were asked for, and there are {total}")
    wanted = float(rows) if rows is not None else (share or 0.0) * total
    sizes = Counter(prompt_ids)
    ranked = sorted(sizes, key=lambda prompt_id: (_rank(prompt_id, seed), prompt_id))
    taken, count = 0, 0
    while taken < len(ranked) and abs(count + sizes[ranked[taken]] - wanted) < abs(count - wanted):
        count += sizes[ranked[taken]]
        taken += 1
    if 0 < wanted < total and len(ranked) > 1:
        taken = min(max(taken, 1), len(ranked) - 1)
    return frozenset(ranked[:taken])


def _rank(prompt_id: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{prompt_id}".encode()).hexdigest()
