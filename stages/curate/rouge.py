"""Near-duplicates by ROUGE-L, exactly, without comparing everything with everything.

ROUGE-L F1 of two word sequences of lengths m and n is 2·LCS/(m+n), LCS the length of their longest common
subsequence. A text is a duplicate if that exceeds the threshold for any indexed text (Self-Instruct, arXiv
2212.10560, section 2.2: 0.7). The smallest LCS that exceeds it depends on m+n alone, which gives three sound
bounds, cheapest first:

1. LCS ≤ the number of shared words, repeats counted. A match needs at least q of them whatever its length, so
   it must hold one of *any* m-q+1 words of the query: only those with the shortest posting lists are looked
   up (the prefix filter of PPJoin, Xiao et al. 2008, one-sided, so that it needs no fixed order of the words
   and texts can be added).
2. Words found there, plus all that were not looked up, must reach what this pair's m+n asks for.
3. The same with the words not looked up now counted.

What is left goes to rapidfuzz's bit-parallel LCS, each distinct word being one character. Nothing is
approximate: the decisions are those of the double loop (tests/curate/test_rouge.py, bench/dedup.py).
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

from stages.curate.words import words

_UNKNOWN = 0  # the character of every query word that no indexed text holds: it can match nothing
_CODE_POINTS = 0x110000

_Int32s = npt.NDArray[np.int32]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duplicate:
    """The text that makes another one a duplicate: its place in `against` or in `texts`, and the F1."""

    among: Literal["against", "texts"]
    position: int
    score: float


class RougeIndex:
    """Texts to compare new ones with. Ids count from 0 in the order of `add`."""

    def __init__(self, threshold: float = 0.7) -> None:
        """A match is an F1 strictly greater than `threshold`. ValueError unless 0 < threshold < 1."""
        if not 0 < threshold < 1:
            raise ValueError(f"the ROUGE-L threshold must lie between 0 and 1, not {threshold}")
        self.threshold = threshold
        self._codes: dict[str, int] = {}  # word → code point
        self._encoded: list[str] = []  # id → text, one character a word
        self._lengths = array("i")  # id → words
        self._first: dict[str, int] = {}  # encoded text → its lowest id
        # Posting key → ascending ids. The k-th occurrence of a word in a text has a key of its own, so that
        # the intersection of two sets of keys is the intersection of the bags of words.
        self._postings: dict[int, array[int]] = {}

    def __len__(self) -> int:
        return len(self._encoded)

    def add(self, text: str) -> int:
        """Index a text, duplicate or not, and return its id."""
        number = len(self._encoded)
        codes = [self._code(word) for word in words(text)]
        encoded = "".join(map(chr, codes))
        for key in _posting_keys(codes):
            self._postings.setdefault(key, array("i")).append(number)
        self._encoded.append(encoded)
        self._lengths.append(len(codes))
        self._first.setdefault(encoded, number)
        return number

    def nearest_over(self, text: str) -> tuple[int, float] | None:
        """(id, F1) of the most similar indexed text, if its F1 exceeds the threshold.

        The lowest id wins among equals. A text without words has an F1 of 0 with everything, itself included.
        """
        codes = [self._codes.get(word, _UNKNOWN) for word in words(text)]
        if not codes:
            return None
        encoded = "".join(map(chr, codes))
        if encoded in self._first:
            return self._first[encoded], 1.0
        best: tuple[int, float] | None = None
        for number in self._candidates(codes):
            total = len(codes) + self._lengths[number]
            common = LCSseq.similarity(
                encoded, self._encoded[number], score_cutoff=_least_common(self.threshold, total)
            )
            score = 2 * common / total
            if score > (best[1] if best else self.threshold):
                best = number, score
        return best

    def _candidates(self, codes: list[int]) -> list[int]:
        """Ascending ids of the texts that share enough words with the query to be a match."""
        m = len(codes)
        postings = sorted((self._postings.get(key, _NO_IDS) for key in _posting_keys(codes)), key=len)
        split = m - _least_common_of_any(self.threshold, m) + 1
        looked_up, left_out = postings[:split], postings[split:]
        found = np.concatenate([np.frombuffer(ids, np.int32) for ids in looked_up])
        if not found.size:
            return []
        ids, shared = _count(found, len(self._encoded))
        n = np.frombuffer(self._lengths, np.int32)[ids]
        needed = self._needed(m, n)
        possible = (shared + len(left_out) >= needed) & (np.minimum(n, m) >= needed)
        ids, shared, needed = ids[possible], shared[possible], needed[possible]
        for posting in left_out:
            shared += _holds(np.frombuffer(posting, np.int32), ids)
        return [int(number) for number in ids[shared >= needed]]

    def _needed(self, m: int, n: _Int32s) -> _Int32s:
        """The LCS that a match of m words with each of n[·] words must have."""
        longest = int(n.max())
        return _least_common_table(self.threshold, m, 64 * (longest // 64 + 1))[n]

    def _code(self, word: str) -> int:
        # Surrogates are used like any other code point: these strings are compared, never encoded.
        code = self._codes.get(word)
        if code is None:
            code = len(self._codes) + 1
            if code >= _CODE_POINTS:
                raise ValueError(f"the texts hold more than {len(self._codes)} distinct words; index them in parts")
            self._codes[word] = code
        return code


def deduplicate(texts: Sequence[str], against: Iterable[str] = (), threshold: float = 0.7) -> list[Duplicate | None]:
    """For each text: what it duplicates among `against` and the texts kept before it, or None if it is kept.

    Greedy and in order, as Self-Instruct does it: the first of two similar texts is the one kept, and a
    dropped text makes no other text a duplicate. `against` is taken as it is, its own duplicates included.
    """
    index = RougeIndex(threshold)
    for text in against:
        index.add(text)
    seeds = len(index)
    kept: list[int] = []  # id - seeds → position in texts
    verdicts: list[Duplicate | None] = []
    for position, text in enumerate(texts):
        match = index.nearest_over(text)
        if match is None:
            index.add(text)
            kept.append(position)
            verdicts.append(None)
        elif match[0] < seeds:
            verdicts.append(Duplicate("against", match[0], match[1]))
        else:
            verdicts.append(Duplicate("texts", kept[match[0] - seeds], match[1]))
    return verdicts


_NO_IDS = array("i")


def _posting_keys(codes: list[int]) -> list[int]:
    """One key for each word, the k-th occurrence of a word differing from its first."""
    seen: Counter[int] = Counter()
    keys = []
    for code in codes:
        keys.append(code + _CODE_POINTS * seen[code])
        seen[code] += 1
    return keys


def _count(found: _Int32s, texts: int) -> tuple[_Ints, _Ints]:
    """The distinct ids in `found`, ascending, and how often each occurs."""
    if found.size * 16 < texts:  # sorting a few beats sweeping an array as long as the index
        ids, times = np.unique(found, return_counts=True)
        return ids.astype(np.int64), times
    all_times = np.bincount(found)
    present = np.flatnonzero(all_times)
    return present, all_times[present]


def _holds(ascending: _Int32s, ids: _Ints) -> npt.NDArray[np.bool_]:
    """Which of `ids` are in a posting list."""
    places = np.searchsorted(ascending, ids)
    places[places == ascending.size] = 0
    held: npt.NDArray[np.bool_] = ascending[places] == ids
    return held


@lru_cache(maxsize=65536)
def _least_common(threshold: float, total: int) -> int:
    """The smallest LCS with 2·LCS/total > threshold, by the very comparison that decides in floating point."""
    common = int(threshold * total / 2)
    while 2 * common / total > threshold:
        common -= 1
    while 2 * common / total <= threshold:
        common += 1
    return common


@lru_cache(maxsize=4096)
def _least_common_of_any(threshold: float, m: int) -> int:
    """The smallest LCS that a match of m words can have, whatever its own length."""
    return next(common for n in range(1, m + 1) if (common := _least_common(threshold, m + n)) <= n)


@lru_cache(maxsize=4096)
def _least_common_table(threshold: float, m: int, longest: int) -> _Int32s:
    """_least_common(m + n) for n = 0 … longest."""
    return np.array([_least_common(threshold, m + n) for n in range(longest + 1)], np.int32)
