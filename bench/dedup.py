"""ROUGE-L deduplication: the double loop against stages.curate.rouge, and the latter at 52,000 instructions.

    python -m bench.dedup [--quick]

The instructions are synthetic: sentence frames of the kind that Self-Instruct yields, filled from a
vocabulary whose frequencies fall as 1/rank (Zipf), a quarter of them small mutations of an earlier one. Both
ways must decide alike on the small set, else the bench fails. Peak memory is the whole process's, interpreter
and texts included.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from itertools import accumulate

from bench.machine import describe, peak_gib
from stages.curate.rouge import Duplicate, deduplicate
from stages.curate.words import words

_OPENINGS = (
    "Write {} {}",
    "Explain {}",
    "Given the following {}, find {}",
    "What are the reasons for {}",
    "Describe {} {}",
    "Suggest three uses of {}",
    "Summarize this note on {} {}: {} {} {} {} {}",
    "How would you {} {}",
    "Compare {} with {}",
    "You are {} {} now. Draft a letter to {} {}",
    "Convert {} into {}",
    "Name {} that sells {}",
    "Classify {}, {}, {}, {}",
    "Plan {} weeks of {}",
    "Is it true that {} can {} {}",
    "Edit {}",
    "Find an error in {} {}",
    "Tell a story of {}",
)
_MIDDLES = (
    " about {} and {}",
    " in simple terms for {} {}",
    " and describe how it affects {}",
    " without using {} or {}",
    " that {} could use to {} their {}",
    ", giving at least two examples of {}",
    " which asks them to {} the {} {}",
    " before the {} {}",
    " if the {} were {}",
    " so that {} {} would understand {} {}",
    " by means of {}, {} and {} {}",
)
_TAILS = (
    ".",
    ".",
    ".",
    "?",
    ". Keep the {} under {} words.",
    ". Use a {} tone and mention {} {}.",
    ". Then rewrite it for {} {}.",
    ". Assume that the {} has {} {} and no {}.",
    ". Justify your answer with {} {} {}.",
)
_VOCABULARY = 20_000


def synthetic(count: int, seed: int) -> list[str]:
    """`count` instructions of 5 to 50 words, the same for the same seed."""
    source = random.Random(seed)
    vocabulary = _vocabulary(source)
    frequencies = list(accumulate(1 / rank for rank in range(1, _VOCABULARY + 1)))
    texts: list[str] = []
    while len(texts) < count:
        if texts and source.random() < 0.25:
            texts.append(_mutated(source.choice(texts), vocabulary, source))
            continue
        frame = source.choice(_OPENINGS) + source.choice(_MIDDLES) + source.choice(_TAILS)
        texts.append(frame.format(*source.choices(vocabulary, cum_weights=frequencies, k=frame.count("{}"))))
    return texts


def _vocabulary(source: random.Random) -> list[str]:
    starts = (
        "b",
        "br",
        "c",
        "ch",
        "d",
        "f",
        "g",
        "gr",
        "h",
        "l",
        "m",
        "n",
        "p",
        "pr",
        "r",
        "s",
        "st",
        "t",
        "tr",
        "v",
    )
    middles = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
    made: dict[str, None] = {}
    while len(made) < _VOCABULARY:
        syllables = source.choice((1, 2, 2, 3))
        made["".join(source.choice(starts) + source.choice(middles) for _ in range(syllables)) + "n"] = None
    return list(made)


def _mutated(text: str, vocabulary: Sequence[str], source: random.Random) -> str:
    """A few words replaced, dropped, doubled or swapped: similarities on both sides of 0.7."""
    parts = text.split()
    for _ in range(source.randint(0, max(1, len(parts) // 2))):
        place = source.randrange(len(parts))
        match source.randrange(4):
            case 0:
                parts[place] = source.choice(vocabulary)
            case 1 if len(parts) > 3:
                del parts[place]
            case 2:
                parts.insert(place, parts[place])
            case _:
                other = source.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
    return " ".join(parts)


def brute_force(texts: Sequence[str], against: Sequence[str], threshold: float = 0.7) -> list[Duplicate | None]:
    """What `deduplicate` computes, by the definition: every text with everything kept, a plain LCS each time."""
    known: list[tuple[list[str], Duplicate]] = [
        (words(text), Duplicate("against", position, 0.0)) for position, text in enumerate(against)
    ]
    verdicts: list[Duplicate | None] = []
    for position, text in enumerate(texts):
        mine = words(text)
        nearest: Duplicate | None = None
        for other, origin in known:
            total = len(mine) + len(other)
            score = 2 * plain_lcs(mine, other) / total if total else 0.0
            if score > (nearest.score if nearest else threshold):
                nearest = Duplicate(origin.among, origin.position, score)
        verdicts.append(nearest)
        if nearest is None:
            known.append((mine, Duplicate("texts", position, 0.0)))
    return verdicts


def plain_lcs(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the longest common subsequence by the textbook table, a row at a time."""
    above = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for column, candidate in enumerate(other):
            row.append(above[column] + 1 if word == candidate else max(above[column + 1], row[column]))
        above = row
    return above[-1]


def main() -> int:
    """Print the table and the line of JSON; 1 if the two ways disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds instead of minutes")
    quick: bool = parser.parse_args().quick
    small, large = (300, 5_000) if quick else (1_000, 52_000)

    texts, seeds = synthetic(small, seed=1), synthetic(175, seed=2)
    started = time.perf_counter()
    expected = brute_force(texts, seeds)
    brute_seconds = time.perf_counter() - started
    started = time.perf_counter()
    found = deduplicate(texts, seeds)
    small_seconds = time.perf_counter() - started
    if found != expected:
        differing = sum(a != b for a, b in zip(found, expected, strict=True))
        print(f"the two ways disagree on {differing} of {small} instructions", file=sys.stderr)
        return 1

    many = synthetic(large, seed=3)
    started = time.perf_counter()
    verdicts = deduplicate(many, seeds)
    seconds = time.perf_counter() - started
    dropped = sum(verdict is not None for verdict in verdicts)
    peak_mib = peak_gib() * 1024
    ratio = brute_seconds / small_seconds

    small_dropped = sum(verdict is not None for verdict in found)
    print(f"{'way':<14}{'n':>8}{'dropped':>9}{'seconds':>10}")
    print(f"{'double loop':<14}{small:>8}{small_dropped:>9}{brute_seconds:>10.2f}")
    print(f"{'index':<14}{small:>8}{small_dropped:>9}{small_seconds:>10.2f}   {ratio:.0f} times faster, alike")
    print(f"{'index':<14}{large:>8}{dropped:>9}{seconds:>10.2f}   one process, peak {peak_mib:.0f} MiB")
    figures = {"ratio": round(ratio, 1), "seconds": round(seconds, 2), "peak_mib": round(peak_mib)}
    print(json.dumps({"machine": describe(), "n": large, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
