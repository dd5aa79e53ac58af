"""Measures of diversity that need no model: shares of distinct n-grams, nearest neighbours and clusters by ROUGE-L.

All of them depend on how many texts there are, so they are compared only between samples of one size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from stages.curate.words import words

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Diversity:
    """Of N texts: distinct-n by n, mean nearest ROUGE-L F1, clusters and the share in the largest; None: too few."""

    texts: int
    distinct: dict[int, float | None]
    self_rouge: float | None
    clusters: int
    largest_cluster: float


@dataclass(frozen=True)
class Kept:
    """Of two samples of N texts each: the first's distinct texts and distinct-2, over the second's; None: no pair."""

    texts: int
    distinct_texts: float
    distinct_pairs: float | None


def measure(texts: Sequence[str], cluster_threshold: float) -> Diversity:
    """The measures of some texts; those without a word have no n-gram and resemble nothing."""
    split = [words(text) for text in texts]
    likeness_NN = rouge_matrix(split)
    sizes = cluster_sizes(likeness_NN, cluster_threshold)
    nearest = float((likeness_NN - np.eye(len(texts))).max(axis=1).mean()) if len(texts) > 1 else None
    return Diversity(
        texts=len(texts),
        distinct={n: distinct(split, n) for n in (1, 2, 3)},
        self_rouge=nearest,
        clusters=len(sizes),
        largest_cluster=max(sizes, default=0) / max(1, len(texts)),
    )


def kept(texts: Sequence[str], others: Sequence[str]) -> Kept:
    """How varied some texts are against as many others; both hold at least one."""
    split, other = ([words(text) for text in each] for each in (texts, others))
    pairs = distinct(other, 2)
    return Kept(
        texts=len(texts),
        distinct_texts=len(set(map(tuple, split))) / len(set(map(tuple, other))),
        distinct_pairs=(distinct(split, 2) or 0.0) / pairs if pairs else None,
    )


def distinct(split: Sequence[Sequence[str]], n: int) -> float | None:
    """Distinct n-grams over all n-grams (Li et al. 2016, distinct-n); None where no text has n words."""
    counts = Counter(gram for text in split for gram in zip(*(text[first:] for first in range(n)), strict=False))
    total = counts.total()
    return len(counts) / total if total else None


def rouge_matrix(split: Sequence[Sequence[str]]) -> _Floats:
    """ROUGE-L F1 of every two texts, 1 on the diagonal: 2·LCS/(m+n), which is Indel's normalised similarity."""
    codes: dict[str, str] = {}
    # One character a word: rapidfuzz then counts words.
    encoded = ["".join(codes.setdefault(word, chr(len(codes) + 1)) for word in text) for text in split]
    found: _Floats = cdist(encoded, encoded, scorer=Indel.normalized_similarity, dtype=np.float64)
    empty = np.array([not text for text in encoded], dtype=bool)
    found[empty, :] = found[:, empty] = 0.0  # two empty texts are equal to Indel, and nothing to ROUGE
    np.fill_diagonal(found, 1.0)
    return found


def cluster_sizes(likeness_NN: _Floats, threshold: float) -> list[int]:
    """Sizes of clusters: each text joins the first one whose founding text it resembles, or founds one."""
    founders: list[int] = []
    sizes: list[int] = []
    for text in range(len(likeness_NN)):
        near = np.flatnonzero(likeness_NN[text, founders] > threshold) if founders else np.array([], dtype=np.int64)
        if near.size:
            sizes[int(near[0])] += 1
        else:
            founders.append(text)
            sizes.append(1)
    return sizes
