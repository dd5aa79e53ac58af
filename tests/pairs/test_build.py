"""Each policy as a table: scores of one prompt in, (chosen, rejected) out, or why there is none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from stages.pairs.build import Policy, Scored, Without, build_pairs

# name → (policy, scores of one prompt (a, b, c, …), noise of each, pairs as "chosen>rejected" or the reason
# for none)
POLICIES: dict[str, tuple[str, list[float], float, str | Without]] = {
    "all: every helpful with every harmful": ("all", [2, 1, -1, -3], 0, "a>d b>d a>c b>c"),
    "all: no two helpful ones": ("all", [3, 2, -1], 0, "a>c b>c"),
    "all: ties apart": ("all", [2, 0.15, -0.15, -1], 0.1, "a>d"),
    "all: two sigma exactly is no tie": ("all", [0.5, -0.5], 0.25, "a>b"),
    "all: zero is a tie": ("all", [1, 0], 0, Without.NO_HARMFUL),
    "all: only ties": ("all", [0.1, -0.1], 0.1, Without.TIES),
    "all: all helpful": ("all", [2, 1], 0, Without.NO_HARMFUL),
    "all: all harmful but a tie": ("all", [-2, 0.1], 0.1, Without.NO_HELPFUL),
    "all: one instruction": ("all", [2], 0, Without.ONE_OUTPUT),
    "best_worst: whatever the sign": ("best_worst", [2, 5, 3], 0, "b>a"),
    "best_worst: equal scores": ("best_worst", [2, 2], 0, Without.GAP_WITHIN_NOISE),
    "best_worst: a gap within its noise": ("best_worst", [2.0, 2.2, 2.1], 0.1, Without.GAP_WITHIN_NOISE),
    "best_worst: one instruction": ("best_worst", [2], 0, Without.ONE_OUTPUT),
    "best_worst: ids decide between equals": ("best_worst", [1, 2, 2, 1], 0, "b>a"),
    "ranked: every combination, widest first": ("ranked", [1, 4, 2], 0, "b>a b>c c>a"),
    "ranked: without those within noise": ("ranked", [1, 4, 1.2], 0.1, "b>a b>c"),
}


@pytest.mark.parametrize(("policy", "scores", "noise", "expected"), POLICIES.values(), ids=POLICIES.keys())
def test_a_policy_makes_these_pairs(policy: str, scores: list[float], noise: float, expected: str | Without) -> None:
    rows = _prompt(scores, noise=noise)
    for order in (rows, rows[::-1]):
        built = build_pairs(order, policy=policy)
        if isinstance(expected, Without):
            assert (built.rows, built.without) == ([], {expected: 1})
        else:
            assert (_names(built.rows), built.without) == (expected, {})
        assert built.prompts == 1


GAPS: dict[str, tuple[str, list[float], list[float], float, str | Without]] = {
    "at the least gap": ("best_worst", [10, 0], [3, 4], 2.0, "a>b"),
    "below it": ("best_worst", [10, 0], [3, 4], 2.1, Without.GAP_BELOW_LEAST),
    "best_worst falls back on no narrower pair": (
        "best_worst",
        [10, 0, 8],
        [9, 0, 1],
        2,
        Without.GAP_BELOW_LEAST,
    ),
    "ranked keeps a narrower, surer pair": ("ranked", [10, 0, 8], [9, 0, 1], 2, "c>b"),
    "all, too": ("all", [5, 3, -4], [9, 1, 1], 2, "b>c"),
}


@pytest.mark.parametrize(("policy", "scores", "stderrs", "least", "expected"), GAPS.values(), ids=GAPS.keys())
def test_a_gap_is_judged_against_both_standard_errors(
    policy: str, scores: list[float], stderrs: list[float], least: float, expected: str | Without
) -> None:
    built = build_pairs(_prompt(scores, stderrs=stderrs), policy=policy, least_gap_se=least)
    assert _names(built.rows) == (expected if not isinstance(expected, Without) else "")
    assert list(built.without) == ([expected] if isinstance(expected, Without) else [])


def test_a_row_carries_what_training_and_tracing_need() -> None:
    rows = _prompt([3, -1], stderrs=[3, 4])
    (pair,) = build_pairs(rows, policy="all").rows
    assert (pair.prompt_id, pair.prompt) == ("p", "prompt p")
    assert (pair.chosen, pair.rejected) == ("output p-a", "output p-b")
    assert (pair.chosen_id, pair.rejected_id) == ("p-a", "p-b")
    assert (pair.chosen_score, pair.rejected_score, pair.gap, pair.gap_stderr) == (3, -1, 4, 5)
    assert pair.split == "train"
    assert len(pair.pair_id) == 16
    assert build_pairs(rows[::-1], policy="best_worst").rows == [pair]


def test_identical_outputs_make_no_pair() -> None:
    same = _prompt([3, -1], outputs=["x", "x"])
    for policy in Policy:
        assert build_pairs(same, policy=policy).without == {Without.SAME_OUTPUT: 1}
    three = _prompt([3, -1, 1], outputs=["x", "x", "y"])
    assert _names(build_pairs(three, policy="best_worst").rows) in ("a>c", "c>b")
    assert _names(build_pairs(three, policy="ranked").rows) == "a>c c>b"


def test_the_cap_keeps_the_widest_gaps_of_each_prompt_and_counts_the_rest() -> None:
    rows = _prompt([3, 1, -1, -3]) + _prompt([1, -1], prompt_id="q")
    built = build_pairs(rows, policy="all", most_per_prompt=2)
    assert _names(built.rows) == "a>d a>c a>b"
    assert built.over_cap == 2


def test_prompts_never_mix() -> None:
    rows = _prompt([5], prompt_id="p") + _prompt([-5], prompt_id="q")
    built = build_pairs(rows, policy="all")
    assert built.rows == [] and built.without == {Without.ONE_OUTPUT: 2}


def test_prompts_without_pairs_are_counted_by_reason() -> None:
    rows = [
        *_prompt([1, -1], prompt_id="good"),
        *_prompt([1, 2], prompt_id="helpful"),
        *_prompt([2, 3], prompt_id="helpful too"),
        *_prompt([-1, -2], prompt_id="harmful"),
        *_prompt([0, 0], prompt_id="ties"),
        *_prompt([1], prompt_id="single"),
    ]
    built = build_pairs(rows, policy="all")
    assert built.without == {
        Without.ONE_OUTPUT: 1,
        Without.TIES: 1,
        Without.NO_HARMFUL: 2,
        Without.NO_HELPFUL: 1,
    }
    assert (built.prompts, built.ties) == (6, 2)
    assert len({pair.prompt_id for pair in built.rows}) + sum(built.without.values()) == built.prompts


def test_no_prompt_is_on_both_sides_of_the_split() -> None:
    rows = [row for number in range(40) for row in _prompt([2, 1, -1, -2], prompt_id=f"p{number}")]
    built = build_pairs(rows, policy="all", heldout_share=0.2, seed=3)
    sides = {side: {pair.prompt_id for pair in built.rows if pair.split == side} for side in ("train", "heldout")}
    assert sides["train"].isdisjoint(sides["heldout"])
    assert len(sides["heldout"]) == 8
    again = build_pairs(rows[::-1], policy="all", heldout_share=0.2, seed=3)
    assert {pair.pair_id: pair.split for pair in again.rows} == {pair.pair_id: pair.split for pair in built.rows}
    other = build_pairs(rows, policy="all", heldout_share=0.2, seed=4)
    assert {pair.prompt_id for pair in other.rows if pair.split == "heldout"} != sides["heldout"]


def test_responses_are_paired_within_an_instruction_and_split_with_its_prompt() -> None:
    instructions = [row for number in range(20) for row in _prompt([2, -1], prompt_id=f"p{number}")]
    responses = [
        replace(output, kind="response", group=row.id, prompt_id=row.prompt_id, prompt=f"asks {row.id}")
        for row in instructions
        for output in _prompt([1, -1], prompt_id=f"r-{row.id}")
    ]
    built = build_pairs([*instructions, *responses], policy="all", heldout_share=0.3)
    of_kind = {kind: [pair for pair in built.rows if pair.kind == kind] for kind in ("instruction", "response")}
    assert {kind: len(pairs) for kind, pairs in of_kind.items()} == {"instruction": 20, "response": 40}
    for pair in of_kind["response"]:
        assert pair.chosen_id.rpartition("-")[0] == pair.rejected_id.rpartition("-")[0]
        assert pair.prompt == f"asks {pair.chosen_id.removeprefix('r-').rpartition('-')[0]}"
    sides = {side: {pair.prompt_id for pair in built.rows if pair.split == side} for side in ("train", "heldout")}
    assert sides["heldout"] and sides["train"].isdisjoint(sides["heldout"])
    assert built.kinds["response"].groups == 40 and built.prompts == 60


def test_unknown_standard_errors_are_fine_until_a_least_gap_asks_for_them() -> None:
    rows = _prompt([3, -1], stderrs=[None, None])
    (pair,) = build_pairs(rows, policy="all").rows
    assert pair.gap_stderr is None
    unknown = build_pairs(rows, policy="all", least_gap_se=1)
    assert (unknown.rows, unknown.without) == ([], {Without.STDERR_UNKNOWN: 1})


def test_one_output_of_unknown_standard_error_costs_its_own_pairs_alone() -> None:
    rows = [*_prompt([9, 3, -1], stderrs=[None, 1, 1]), *_prompt([5, -5], prompt_id="q")]
    built = build_pairs(rows, policy="ranked", least_gap_se=1.5)
    assert (_names(built.rows), built.without) == ("b>c a>b", {})


def test_nothing_in_gives_nothing_out() -> None:
    built = build_pairs([], policy="all", heldout_share=0.5)
    assert (built.rows, built.prompts, built.without) == ([], 0, {})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown policy": ({"policy": "some"}, "some"),
    "a negative least gap": ({"policy": "all", "least_gap_se": -1.0}, "0 or more"),
    "a cap of none": ({"policy": "all", "most_per_prompt": 0}, "at least 1"),
    "a share over 1": ({"policy": "all", "heldout_share": 2.0}, "share"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_pairs(_prompt([1, -1]), **settings)


def test_rows_that_contradict_each_other_are_refused() -> None:
    first, second = _prompt([1, -1])
    with pytest.raises(ValueError, match="given twice"):
        build_pairs([first, first], policy="all")
    with pytest.raises(ValueError, match="no finite score"):
        build_pairs(_prompt([float("nan"), 1]), policy="all")
    changed = Scored("p-z", "p", "p", "another prompt", "output", 1.0, 0.1, 0.0)
    with pytest.raises(ValueError, match="two texts"):
        build_pairs([first, second, changed], policy="all")


def _prompt(
    scores: Sequence[float],
    *,
    prompt_id: str = "p",
    noise: float = 0.0,
    stderrs: Sequence[float | None] | None = None,
    outputs: Sequence[str] | None = None,
) -> list[Scored]:
    """Instructions a, b, c, … of one prompt."""
    ids = [f"{prompt_id}-{'abcdefgh'[place]}" for place in range(len(scores))]
    return [
        Scored(
            id=instruction_id,
            group=prompt_id,
            prompt_id=prompt_id,
            prompt=f"prompt {prompt_id}",
            output=outputs[place] if outputs else f"output {instruction_id}",
            score=scores[place],
            stderr=stderrs[place] if stderrs else 0.1,
            noise=noise,
        )
        for place, instruction_id in enumerate(ids)
    ]


def _names(pairs: Sequence[Any]) -> str:
    return " ".join(f"{pair.chosen_id[-1]}>{pair.rejected_id[-1]}" for pair in pairs)
