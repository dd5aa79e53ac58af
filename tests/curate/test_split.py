import random
from collections import Counter

import pytest

from stages.curate.split import first_side

ROWS = [f"prompt-{number}" for number in range(100) for _ in range(1 + number % 4)]  # 250 rows
PINNED = frozenset("cfg")


def test_the_split_is_the_same_whatever_the_order() -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    assert first_side(shuffled, seed=7, share=0.4) == first_side(ROWS, seed=7, share=0.4)


def test_another_seed_splits_otherwise() -> None:
    assert first_side(ROWS, seed=7, share=0.4) != first_side(ROWS, seed=8, share=0.4)


def test_these_prompts_were_chosen_on_every_machine_so_far() -> None:
    assert first_side(list("abcdefgh"), seed=0, rows=3) == PINNED


@pytest.mark.parametrize("rows", [1, 2, 50, 96, 249])
def test_whole_prompts_come_as_near_to_the_rows_as_they_can(rows: int) -> None:
    sizes = Counter(ROWS)
    got = sum(sizes[prompt_id] for prompt_id in first_side(ROWS, seed=3, rows=rows))
    assert abs(got - rows) <= max(sizes.values()) // 2 or rows in (1, 249)
    assert 0 < got < len(ROWS)


def test_a_share_is_of_the_rows() -> None:
    assert first_side(ROWS, seed=3, share=0.2) == first_side(ROWS, seed=3, rows=50)


def test_one_more_prompt_moves_no_other_across_but_at_the_border() -> None:
    before, after = first_side(ROWS, seed=5, rows=120), first_side([*ROWS, "new"], seed=5, rows=120)
    assert len(before ^ (after - {"new"})) <= 1


EDGES = {
    "nothing asked": (ROWS, {"share": 0.0}, 0),
    "everything asked": (ROWS, {"share": 1.0}, 100),
    "no rows": ([], {"share": 0.5}, 0),
    "one prompt cannot be shared": (["a", "a"], {"share": 0.2}, 0),
    "a small share of two prompts": (["a", "a", "b", "b"], {"share": 0.01}, 1),
    "nearly all of two prompts": (["a", "a", "b", "b"], {"share": 0.99}, 1),
}


@pytest.mark.parametrize(("prompt_ids", "asked", "prompts"), EDGES.values(), ids=EDGES.keys())
def test_both_sides_get_a_prompt_if_both_are_asked_for(
    prompt_ids: list[str], asked: dict[str, float], prompts: int
) -> None:
    assert len(first_side(prompt_ids, seed=1, **asked)) == prompts  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", [{}, {"share": 0.5, "rows": 1}, {"share": 1.5}, {"rows": 251}, {"rows": -1}])
def test_what_cannot_be_had_is_refused(asked: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"either|share|asked for"):
        first_side(ROWS, seed=1, **asked)  # type: ignore[arg-type]
