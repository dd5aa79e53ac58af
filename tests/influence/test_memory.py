"""How many GPUs a student needs, by arithmetic."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.audit.settings import AuditSettings
from stages.contract.errors import ExitCode, StageError
from stages.influence import inputs
from stages.influence.memory import StudentSize, rank_bytes, student_size, together
from stages.influence.results import ProbeOptions
from stages.influence.scorer import Scoring
from stages.influence.settings import InfluenceSettings, ProbeSettings
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
    tied=False,
)
LLAMA_70B = StudentSize(
    parameters=70_553_706_496,
    largest=128_256 * 8192,
    layer=855_654_400,
    layers=80,
    hidden=8192,
    intermediate=28_672,
    vocabulary=128_256,
    tied=False,
)
FRUGAL = ProbeOptions(
    gradient_groups=0, gradient_dtype="bfloat16", forward_dtype="bfloat16", gradient_checkpointing=True
)


def test_a_size_is_read_from_the_config_alone(tmp_path: Path) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path)
    found = student_size(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (found.layers, found.hidden, found.vocabulary, found.tied) == (2, 32, 97, True)
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
    found = rank_bytes(size, FRUGAL, ranks=ranks, exact=exact, first_order=first_order, tokens=1024)
    assert (found < 0.95 * 139 * GIB) == fits


def test_groups_of_the_gradient_are_what_an_8b_student_has_no_room_for_on_one_gpu() -> None:
    arguments = {"exact": True, "first_order": True, "tokens": 1024}
    with_groups = replace(FRUGAL, gradient_groups=8)
    assert rank_bytes(LLAMA_8B, with_groups, ranks=1, **arguments) > 139 * GIB
    assert rank_bytes(LLAMA_8B, with_groups, ranks=2, **arguments) < 139 * GIB


def test_memory_falls_with_ranks_but_for_what_is_whole_on_each() -> None:
    found = [
        rank_bytes(LLAMA_8B, FRUGAL, ranks=ranks, exact=True, first_order=True, tokens=1024)
        for ranks in (2, 4, 8, 1000)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] > 3 * 4 * LLAMA_8B.largest


def test_a_tied_head_costs_a_gpu_a_second_gradient_of_the_embedding() -> None:
    arguments = {"ranks": 1, "exact": True, "first_order": True, "tokens": 1024}
    tied, untied = (rank_bytes(replace(LLAMA_8B, tied=tie), FRUGAL, **arguments) for tie in (True, False))
    assert tied - untied == 4 * LLAMA_8B.largest


def test_candidates_side_by_side_each_have_a_gradient_of_the_embedding_on_a_cpu() -> None:
    arguments = {"ranks": 1, "exact": True, "tokens": 1024, "device": "cpu"}
    # Without groups the peak is while candidates are probed.
    both, exact = (rank_bytes(LLAMA_8B, FRUGAL, first_order=first, **arguments) for first in (True, False))
    more = (together("cpu", 1) - 1) * 4 * LLAMA_8B.largest
    assert more <= both - exact <= more + 24 * LLAMA_8B.parameters


def needed(monkeypatch: pytest.MonkeyPatch, size: StudentSize, settings: ProbeSettings, gpus: int) -> int:
    """`ranks_needed` on H200s, whose 139.8 GiB torch reports."""
    monkeypatch.setattr(inputs, "student_size", lambda folder: size)
    properties = SimpleNamespace(total_memory=int(139.8 * GIB))
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    names = (field.name for field in fields(ProbeOptions) if field.name != "seed")
    options = ProbeOptions(**{name: getattr(settings, name) for name in names})
    return inputs.ranks_needed(Scoring(Path("student"), [], options, "cuda"), settings, gpus)


FRUGALLY = {name: getattr(FRUGAL, name) for name in ("gradient_groups", "gradient_dtype", "forward_dtype")}
FRUGALLY |= {"gradient_checkpointing": True, "corrected_groups": 0}


@pytest.mark.parametrize(
    ("size", "settings", "ranks"),
    [
        (LLAMA_8B, InfluenceSettings(method="two_stage", **FRUGALLY), 1),
        (LLAMA_8B, InfluenceSettings(method="two_stage"), 8),
        (LLAMA_8B, AuditSettings(**FRUGALLY), 8),
        (LLAMA_70B, InfluenceSettings(method="first_order", **FRUGALLY), 8),
        (LLAMA_70B, InfluenceSettings(method="exact", **FRUGALLY), 8),
    ],
)
def test_the_stage_takes_the_students_that_the_documentation_promises(monkeypatch, size, settings, ranks) -> None:
    assert needed(monkeypatch, size, settings, 8) == ranks


@pytest.mark.parametrize(
    ("settings", "hint"),
    [(InfluenceSettings(method="two_stage", **FRUGALLY), "first_order"), (AuditSettings(**FRUGALLY), "size: 0")],
)
def test_a_student_that_all_gpus_together_cannot_hold_is_refused_with_figures(monkeypatch, settings, hint) -> None:
    with pytest.raises(StageError, match=r"needs 1\d\d\.\d GiB on each of 8 GPUs of 132.8 usable GiB") as caught:
        needed(monkeypatch, LLAMA_70B, settings, 8)
    assert caught.value.code == ExitCode.OUT_OF_MEMORY
    assert hint in (caught.value.hint or "")
