"""Which instructions each prompt shows."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pyarrow as pa

from stages.contract.errors import bad_settings


@dataclass(frozen=True)
class Example:
    id: str
    instruction: str


class Pool:
    """Seed instructions, and those that an earlier iteration generated and kept.

    Args:
        count: instructions in each prompt.
        generated: how many of them come from the earlier iteration, where it kept at least so many.

    Raises:
        StageError: BAD_SETTINGS where there are fewer seeds than a prompt shows.
    """

    def __init__(self, seeds: pa.Table, previous: pa.Table | None, *, count: int, generated: int) -> None:
        self._seeds = _examples(seeds, "seed_id")
        self._previous = [] if previous is None else _examples(previous, "instruction_id")
        self._generated = generated if len(self._previous) >= generated else 0
        self._seeded = count - self._generated
        if len(self._seeds) < self._seeded:
            raise bad_settings(
                f"a prompt shows {self._seeded} seeds, and there are {len(self._seeds)}",
                where="examples",
                hint="give prepare more seeds, or set examples lower",
            )

    def draw(self, random: Random) -> list[Example]:
        """The examples of one prompt, none twice, in random order."""
        drawn = random.sample(self._seeds, self._seeded) + random.sample(self._previous, self._generated)
        random.shuffle(drawn)
        return drawn


def _examples(table: pa.Table, key: str) -> list[Example]:
    """In order of their ids, so that how the table was written does not matter."""
    rows = table.select([key, "instruction"]).to_pylist()
    return sorted((Example(row[key], row["instruction"]) for row in rows), key=lambda example: example.id)
