"""Which generated rows share a run of words with a row that students are judged on.

A run of n words is the usual test (GPT-3 took 13, for long documents; instructions are short). An evaluation text of
fewer words counts as a run of its own, down to `_SHORTEST`: less is said by everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from stages.curate.words import words

_SHORTEST = 4


class Overlaps:
    """The runs of words of evaluation texts."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._runs: defaultdict[int, dict[tuple[str, ...], str]] = defaultdict(dict)

    def add(self, name: str, texts: Iterable[str | None]) -> None:
        """Texts to be found; `name` says where a run comes from."""
        for text in texts:
            split = words(text or "")
            length = min(self.n, len(split))
            if length >= _SHORTEST:
                for run in _runs(split, length):
                    self._runs[length].setdefault(run, name)

    def find(self, text: str) -> tuple[str, str] | None:
        """(where it comes from, the run) of the longest known run of words in a text; None where there is none."""
        split = words(text)
        for length in sorted(self._runs, reverse=True):
            known = self._runs[length]
            for run in _runs(split, length):
                if run in known:
                    return known[run], " ".join(run)
        return None


def _runs(split: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(split[first : first + length]) for first in range(len(split) - length + 1))
