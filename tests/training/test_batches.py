"""Which rows each step sees."""

from __future__ import annotations

from collections import Counter

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.training.batches import micro_batches, most_ranks, row_order


@pytest.mark.parametrize(
    ("batch", "most", "ranks", "expected"),
    [
        (32, 4, 1, (4, 8)),
        (32, 4, 8, (4, 1)),
        (2, 4, 1, (2, 1)),
        (6, 4, 1, (3, 2)),
        (6, 4, 2, (3, 1)),
        (7, 4, 1, (1, 7)),
    ],
)
def test_a_batch_is_dealt_out(batch: int, most: int, ranks: int, expected: tuple[int, int]) -> None:
    assert micro_batches(batch, most, ranks) == expected


@pytest.mark.parametrize(("batch", "gpus", "ranks"), [(32, 8, 8), (2, 8, 2), (6, 4, 3), (4, 0, 1), (7, 4, 1)])
def test_without_a_number_of_ranks_as_many_gpus_work_as_the_batch_has_rows_for(
    batch: int, gpus: int, ranks: int
) -> None:
    assert most_ranks(batch, gpus) == ranks


@pytest.mark.parametrize(("batch", "ranks", "nearest"), [(32, 5, 30), (2, 8, 8), (11, 4, 12)])
def test_a_batch_that_ranks_cannot_share_names_the_nearest(batch: int, ranks: int, nearest: int) -> None:
    with pytest.raises(StageError) as caught:
        micro_batches(batch, 4, ranks)
    assert caught.value.code == ExitCode.BAD_SETTINGS
    assert caught.value.hint == f"the nearest that can is {nearest}"


def test_each_pass_has_every_row_once_and_another_order() -> None:
    order = row_order(12, 2, 4, seed=1)
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert order[:12] != order[12:]


def test_the_last_batch_is_filled_from_the_next_pass() -> None:
    order = row_order(10, 1, 4, seed=1)
    assert order == row_order(10, 2, 4, seed=1)[:12]
    assert Counter(Counter(order).values()) == {1: 8, 2: 2}


def test_fewer_rows_than_a_batch_still_make_one_step() -> None:
    assert sorted(row_order(2, 1, 4, seed=1)) == [0, 0, 1, 1]


def test_half_a_pass_sees_half_the_rows() -> None:
    assert len(set(row_order(16, 0.5, 4, seed=1))) == 8


def test_the_seed_decides_the_order() -> None:
    assert row_order(50, 1, 4, seed=1) == row_order(50, 1, 4, seed=1) != row_order(50, 1, 4, seed=2)
