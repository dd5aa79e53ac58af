"""First order's sums in one pass are those of the step's own arithmetic, in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.influence import fused
from stages.influence.adam import AdamStep

STEP = AdamStep(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, step=9)
SIZE = 3 * fused._SPAN + 2 * fused._BLOCK + 7


@pytest.fixture(scope="module")
def given() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    m, v = 1e-4 * torch.randn(SIZE), 1e-8 * torch.rand(SIZE)
    v[:100] = 0
    gradients = 1e-4 * torch.randn(3, SIZE)
    gradients[:, :50] = 0
    gradients[1] *= 1e-3
    m[:50] = 0
    return {"m": m, "v": v, "whole": torch.randn(SIZE), "groups": torch.randn(4, SIZE), "gradients": gradients}


def sums(given: dict[str, torch.Tensor], gradients: list[torch.Tensor | None], **other: torch.Tensor) -> np.ndarray:
    kept = given | other
    found = np.zeros((5, 5))
    fused.add_sums(found, STEP, kept["m"], kept["v"], kept["whole"], kept["groups"], gradients)
    return found


def expected(given: dict[str, torch.Tensor], gradient: torch.Tensor) -> np.ndarray:
    m, v, g = (each.double() for each in (given["m"], given["v"], gradient))

    def move(g: torch.Tensor) -> torch.Tensor:
        fresh, square = STEP.beta1 * m + (1 - STEP.beta1) * g, STEP.beta2 * v + (1 - STEP.beta2) * g * g
        root = (square / (1 - STEP.beta2**STEP.step)).sqrt() + STEP.eps
        return STEP.lr * fresh / (1 - STEP.beta1**STEP.step) / root / STEP.rate

    rows = torch.cat([given["whole"][None], given["groups"]]).double()
    return (rows @ (move(g) - move(torch.zeros_like(g)))).numpy()


def test_they_are_those_of_the_step(given) -> None:
    found = sums(given, list(given["gradients"]))
    for candidate, gradient in enumerate(given["gradients"]):
        assert found[candidate] == pytest.approx(expected(given, gradient), rel=1e-5)
    assert not found[3:].any()


def test_a_move_much_smaller_than_the_momentums_is_as_precise(given) -> None:
    small = 1e-6 * given["gradients"][0]
    found = sums(given, [small])[0]
    assert np.abs(found - expected(given, small)).max() < 1e-5 * np.abs(found).max()


def test_no_gradient_moves_nothing_beyond_the_drift(given) -> None:
    assert not sums(given, [None, torch.zeros(SIZE)]).any()


def test_they_do_not_depend_on_threads_or_on_what_stands_beside(given) -> None:
    together = sums(given, list(given["gradients"]))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert (sums(given, list(given["gradients"])) == together).all()
    finally:
        torch.set_num_threads(threads)
    for candidate, gradient in enumerate(given["gradients"]):
        assert (sums(given, [gradient])[0] == together[candidate]).all()


def test_a_candidate_that_is_not_finite_leaves_the_others_alone(given) -> None:
    sick = given["gradients"][0].clone()
    sick[SIZE // 2] = torch.inf
    found = sums(given, [sick, given["gradients"][1]])
    assert not np.isfinite(found[0]).any()
    assert (found[1] == sums(given, list(given["gradients"]))[1]).all()


def test_without_a_place_to_keep_it_the_loop_is_compiled_all_the_same(given, monkeypatch) -> None:
    import numba

    plain = numba.njit

    def refusing(function, *, cache: bool = False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(function, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    fused._kernel.cache_clear()
    try:
        assert sums(given, [given["gradients"][0]])[0] == pytest.approx(
            expected(given, given["gradients"][0]), rel=1e-5
        )
    finally:
        fused._kernel.cache_clear()
