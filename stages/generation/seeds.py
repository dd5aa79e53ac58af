"""Random numbers that depend on what they are for, never on order, shard or batch."""

from __future__ import annotations

import random
from typing import Any

from stages.contract.canonical import digest

SEED_BITS = 31  # vLLM and OpenAI-compatible servers take a signed 32- or 64-bit seed


def sampling_seed(*parts: Any) -> int:
    """A seed in [0, 2^31) out of the content of its parts."""
    return int(digest(list(parts))[:16], 16) >> (64 - SEED_BITS)


def random_for(*parts: Any) -> random.Random:
    """A generator of its own for these parts."""
    return random.Random(int(digest(list(parts)), 16))
