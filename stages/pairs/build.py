"""Preference pairs from the scores of outputs that share a prompt: instructions, or responses to one instruction.

Three policies, all of them on pairs of outputs of one prompt:
- `all`: every helpful (score > 0) with every harmful one (Montessori-Instruct, arXiv
  2410.14208). A score within twice its noise of 0 has no sign: a tie, in no pair.
- `best_worst`: the widest gap between different outputs, whatever the signs (ARTE, arXiv 2406.19227, for
  rationales).
- `ranked`: every combination, the higher score being chosen.
Each drops pairs of equal output, pairs whose gap is within twice its own noise, and, where
`least_gap_se` asks for a gap in standard errors, pairs below it or of unknown standard error; then keeps
at most `most_per_prompt`, widest gap first.

Whether the scores are reliable enough to train on at all is the caller's gate, not decided here.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from typing import Literal

from stages.curate.split import first_side
from stages.pairs.settings import INSTRUCTION, Kind

_NOISE_REACH = 2.0  # |x| < 2·noise is a tie


class Policy(StrEnum):
    """How the outputs of one prompt are combined."""

    ALL = "all"
    BEST_WORST = "best_worst"
    RANKED = "ranked"


class Without(StrEnum):
    """Why a prompt has no pair: the first step after which none was left."""

    ONE_OUTPUT = "one_output"
    TIES = "ties"  # `all`: every score is within its noise
    NO_HARMFUL = "no_harmful"  # `all`: ties apart
    NO_HELPFUL = "no_helpful"  # `all`: ties apart
    SAME_OUTPUT = "same_output"
    GAP_WITHIN_NOISE = "gap_within_noise"
    STDERR_UNKNOWN = "stderr_unknown"  # such as a judge's only readable rating of a response
    GAP_BELOW_LEAST = "gap_below_least"


@dataclass(frozen=True)
class Scored:
    """An output of the teacher: an instruction's mean score over its responses, or the score of one response.

    Attributes:
        group: what is compared with each other: a prompt's id for instructions, an instruction's for responses.
        prompt_id: of the prompt that it all began with. Pairs are split by it, so that an instruction and the
            responses to it are on one side.
        prompt: the text that was continued by `output`.
        stderr, noise: standard error of the score, and how far its method may be off (None: unknown).
    """

    id: str
    group: str
    prompt_id: str
    prompt: str
    output: str
    score: float
    stderr: float | None
    noise: float | None
    kind: Kind = INSTRUCTION


@dataclass(frozen=True)
class Pair:
    """One row of the pairs table; `gap_stderr` is None where a standard error is unknown."""

    pair_id: str
    prompt_id: str
    prompt: str
    chosen: str
    rejected: str
    chosen_id: str
    rejected_id: str
    chosen_score: float
    rejected_score: float
    gap: float
    gap_stderr: float | None
    split: Literal["train", "heldout"]
    kind: Kind


@dataclass(frozen=True)
class Found:
    """What became of the groups of one kind: the prompts of instructions, or the instructions of responses."""

    pairs: int
    groups: int
    without: dict[Without, int]
    ties: int  # outputs whose score is within its noise, whatever the policy
    over_cap: int  # pairs left out by most_per_prompt


@dataclass(frozen=True)
class Pairs:
    """The pairs, by group in order of first appearance and widest gap first, and what became of the groups by kind."""

    rows: list[Pair]
    kinds: dict[Kind, Found]

    @property
    def prompts(self) -> int:
        """Groups of both kinds."""
        return sum(found.groups for found in self.kinds.values())

    @property
    def without(self) -> dict[Without, int]:
        """Groups of both kinds that have no pair, by reason."""
        counts = Counter[Without]()
        for found in self.kinds.values():
            counts.update(found.without)
        return {reason: counts[reason] for reason in Without if counts[reason]}

    @property
    def ties(self) -> int:
        return sum(found.ties for found in self.kinds.values())

    @property
    def over_cap(self) -> int:
        return sum(found.over_cap for found in self.kinds.values())


@dataclass(frozen=True)
class _Candidate:
    chosen: Scored
    rejected: Scored

    @property
    def gap(self) -> float:
        return self.chosen.score - self.rejected.score

    @property
    def stderr(self) -> float | None:
        if self.chosen.stderr is None or self.rejected.stderr is None:
            return None
        return math.hypot(self.chosen.stderr, self.rejected.stderr)

    @property
    def within_noise(self) -> bool:
        """A gap of 0, or one that other packings of the same computation could turn round."""
        reach = _NOISE_REACH * math.hypot(self.chosen.noise or 0.0, self.rejected.noise or 0.0)
        return self.gap <= 0 or self.gap < reach


def build_pairs(
    outputs: Sequence[Scored],
    *,
    policy: Policy | str,
    least_gap_se: float = 0.0,
    most_per_prompt: int | None = None,
    heldout_share: float = 0.0,
    seed: int = 0,
) -> Pairs:
    """Preference pairs of all groups, split once into train and held-out prompts.

    `least_gap_se`: a pair's gap must be at least this many of its standard errors. `heldout_share`: of the
    pairs, as near as whole prompts allow; which prompts depends on `seed` and the ids of those with pairs.
    ValueError for settings out of range, a score that is not finite, an id given twice, or two texts
    for one group.
    """
    policy = Policy(policy)
    _check_settings(least_gap_se, most_per_prompt)
    found: list[_Candidate] = []
    kinds: dict[Kind, Found] = {}
    for kind in dict.fromkeys(output.kind for output in outputs):
        of_kind = [output for output in outputs if output.kind == kind]
        groups = _by_group(of_kind)
        without: Counter[Without] = Counter()
        kept: list[_Candidate] = []
        over_cap = 0
        for group in groups.values():
            passed = _candidates(group, policy, least_gap_se)
            if isinstance(passed, Without):
                without[passed] += 1
                continue
            kept += passed[:most_per_prompt]
            over_cap += len(passed) - len(passed[:most_per_prompt])
        reasons = {reason: without[reason] for reason in Without if without[reason]}
        kinds[kind] = Found(len(kept), len(groups), reasons, sum(map(_is_tie, of_kind)), over_cap)
        found += kept
    heldout = first_side([pair.chosen.prompt_id for pair in found], seed=seed, share=heldout_share)
    return Pairs([_row(pair, pair.chosen.prompt_id in heldout) for pair in found], kinds)


def _check_settings(least_gap_se: float, most_per_prompt: int | None) -> None:
    if not (math.isfinite(least_gap_se) and least_gap_se >= 0):
        raise ValueError(f"least_gap_se is a number of standard errors, 0 or more, not {least_gap_se}")
    if most_per_prompt is not None and most_per_prompt < 1:
        raise ValueError(f"most_per_prompt is at least 1, not {most_per_prompt}")


def _by_group(outputs: Sequence[Scored]) -> dict[str, list[Scored]]:
    groups: defaultdict[str, list[Scored]] = defaultdict(list)
    seen: set[str] = set()
    for row in outputs:
        if not math.isfinite(row.score):
            raise ValueError(f"{row.kind} {row.id} has no finite score")
        if row.id in seen:
            raise ValueError(f"{row.kind} {row.id} is given twice")
        group = groups[row.group]
        if group and group[0].prompt != row.prompt:
            raise ValueError(f"prompt {row.group} has two texts")
        seen.add(row.id)
        group.append(row)
    return groups


def _candidates(group: Sequence[Scored], policy: Policy, least_gap_se: float) -> list[_Candidate] | Without:
    """The pairs of one group that pass, widest gap first, or why there is none."""
    if len(group) < 2:
        return Without.ONE_OUTPUT
    combined = list(_helpful_harmful(group) if policy is Policy.ALL else _higher_lower(group))
    if not combined:
        return _one_signed(group)
    # Ids break ties between equal gaps, so that the order of the rows decides nothing.
    combined.sort(key=lambda pair: (-pair.gap, pair.chosen.id, pair.rejected.id))
    different = [pair for pair in combined if pair.chosen.output != pair.rejected.output]
    if not different:
        return Without.SAME_OUTPUT
    if policy is Policy.BEST_WORST:
        different = different[:1]
    clear = [pair for pair in different if not pair.within_noise]
    if not clear:
        return Without.GAP_WITHIN_NOISE
    if not least_gap_se:
        return clear
    known = [(pair, pair.stderr) for pair in clear if pair.stderr is not None and math.isfinite(pair.stderr)]
    if not known:
        return Without.STDERR_UNKNOWN
    return [pair for pair, stderr in known if pair.gap >= least_gap_se * stderr] or Without.GAP_BELOW_LEAST


def _helpful_harmful(group: Sequence[Scored]) -> Iterator[_Candidate]:
    signed = [row for row in group if not _is_tie(row)]
    helpful = [row for row in signed if row.score > 0]
    harmful = [row for row in signed if row.score < 0]
    return (_Candidate(chosen, rejected) for chosen, rejected in product(helpful, harmful))


def _higher_lower(group: Sequence[Scored]) -> Iterator[_Candidate]:
    ranked = sorted(group, key=lambda row: (-row.score, row.id))
    return (_Candidate(chosen, rejected) for chosen, rejected in combinations(ranked, 2))


def _one_signed(group: Sequence[Scored]) -> Without:
    signed = [row for row in group if not _is_tie(row)]
    if not signed:
        return Without.TIES
    return Without.NO_HARMFUL if signed[0].score > 0 else Without.NO_HELPFUL


def _is_tie(row: Scored) -> bool:
    return row.score == 0 or abs(row.score) < _NOISE_REACH * (row.noise or 0.0)


def _row(pair: _Candidate, heldout: bool) -> Pair:
    chosen, rejected = pair.chosen, pair.rejected
    ids = json.dumps({"chosen": chosen.id, "rejected": rejected.id}, separators=(",", ":"))
    return Pair(
        pair_id=hashlib.sha256(ids.encode()).hexdigest()[:16],
        prompt_id=chosen.prompt_id,
        prompt=chosen.prompt,
        chosen=chosen.output,
        rejected=rejected.output,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        chosen_score=chosen.score,
        rejected_score=rejected.score,
        gap=pair.gap,
        gap_stderr=pair.stderr,
        split="heldout" if heldout else "train",
        kind=chosen.kind,
    )
