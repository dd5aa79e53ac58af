"""Which candidates decide pairs, and which are the audit's sample.

The audit sample is drawn by the hash of a candidate's id: the same candidates whatever the number of shards,
and a shard needs to know only its own.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


class Scored(NamedTuple):
    """A candidate with its score, by whatever method so far."""

    candidate_id: str
    prompt_id: str
    score: float


def audit_order(candidate_ids: Iterable[str], *, salt: str = "audit") -> list[str]:
    """The ids by their hash: where it begins is a uniform sample, whatever the order of the ids was."""
    return sorted(candidate_ids, key=lambda c: hashlib.sha256(f"{salt}:{c}".encode()).digest())


def audit_sample(candidate_ids: Iterable[str], size: int, *, salt: str = "audit") -> set[str]:
    """The `size` ids with the smallest hashes."""
    return set(audit_order(candidate_ids, salt=salt)[:size])


def deciding(candidates: Iterable[Scored], *, per_side: int = 1) -> set[str]:
    """Ids of the `per_side` best and worst of each prompt's candidates; a prompt with one candidate has no
    pair.

    Equal scores are ordered by id, so that the choice does not depend on the order of the rows. Scores that
    are not finite take no part.
    """
    groups: dict[str, list[Scored]] = defaultdict(list)
    for candidate in candidates:
        if math.isfinite(candidate.score):
            groups[candidate.prompt_id].append(candidate)
    chosen: set[str] = set()
    for group in groups.values():
        if len(group) < 2:
            continue
        group.sort(key=lambda c: (c.score, c.candidate_id))
        chosen.update(c.candidate_id for c in (*group[:per_side], *group[-per_side:]))
    return chosen
