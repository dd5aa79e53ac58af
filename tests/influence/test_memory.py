"""How many GPUs a student needs, by arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stages.influence.memory import StudentSize, rank_bytes, student_size
from stages.influence.results import ProbeOptions
from tests.influence.builders import llama

GIB = 2**30
LLAMA_8B = StudentSize(
    parameters=8_030_261_248,
    largest=128_256 * 4096,
    layer=218_112_000,
    layers=32,
    hidden=4096,
    intermediate=14_336,
    vocabulary=128_256,
)
LLAMA_70B = StudentSize(
    parameters=70_553_706_496,
    largest=128_256 * 8192,
    layer=855_654_400,
    layers=80,
    hidden=8192,
    intermediate=28_672,
    vocabulary=128_256,
)
FRUGAL = ProbeOptions(
    gradient_groups=0, gradient_dtype="bfloat16", forward_dtype="bfloat16", gradient_checkpointing=True
)


def test_a_size_is_read_from_the_config_alone(tmp_path: Path) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path)
    found = student_size(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (found.layers, found.hidden, found.vocabulary) == (2, 32, 97)
    assert 2 * found.layer < found.parameters < 2 * found.layer + found.largest + 64


@pytest.mark.parametrize(
    ("size", "ranks", "exact", "first_order", "fits"),
    [
        (LLAMA_8B, 1, False, True, True),
        (LLAMA_8B, 1, True, False, True),
        (LLAMA_8B, 1, True, True, True),
        (LLAMA_70B, 8, False, True, True),
        (LLAMA_70B, 8, True, False, True),
        (LLAMA_70B, 4, False, True, False),
        (LLAMA_70B, 1, True, False, False),
    ],
)
def test_what_fits_gpus_of_139_gib(size: StudentSize, ranks: int, exact: bool, first_order: bool, fits: bool) -> None:
    needed = rank_bytes(size, FRUGAL, ranks=ranks, exact=exact, first_order=first_order, tokens=1024)
    assert (needed < 139 * GIB) == fits


def test_groups_of_the_gradient_are_what_an_8b_student_has_no_room_for_on_one_gpu() -> None:
    arguments = {"exact": True, "first_order": True, "tokens": 1024}
    with_groups = replace(FRUGAL, gradient_groups=8)
    assert rank_bytes(LLAMA_8B, with_groups, ranks=1, **arguments) > 139 * GIB
    assert rank_bytes(LLAMA_8B, with_groups, ranks=2, **arguments) < 139 * GIB


def test_memory_falls_with_ranks_but_for_what_is_whole_on_each() -> None:
    needed = [
        rank_bytes(LLAMA_8B, FRUGAL, ranks=ranks, exact=True, first_order=True, tokens=1024)
        for ranks in (2, 4, 8, 1000)
    ]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] > 3 * 4 * LLAMA_8B.largest
