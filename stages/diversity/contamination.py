"""Which generated rows share a run of words with a row that students are judged on, set by set.

A run of n words is the usual test (GPT-3 took 13, for long documents; instructions are short). An evaluation text of
fewer words counts as a run of its own, down to `_SHORTEST`: less is said by everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from stages.curate.words import words

_SHORTEST = 4


class Overlaps:
    """The runs of words of one set's texts."""

    def __init__(self, n: int, texts: Iterable[str | None]) -> None:
        self._runs: defaultdict[int, set[tuple[str, ...]]] = defaultdict(set)
        for text in texts:
            split = words(text or "")
            length = min(n, len(split))
            if length >= _SHORTEST:
                self._runs[length].update(_runs(split, length))

    def find(self, text: str) -> str | None:
        """The longest known run of words in a text; None where there is none."""
        split = words(text)
        for length in sorted(self._runs, reverse=True):
            known = self._runs[length]
            for run in _runs(split, length):
                if run in known:
                    return " ".join(run)
        return None


def _runs(split: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(split[first : first + length]) for first in range(len(split) - length + 1))
