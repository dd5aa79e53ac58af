"""The out-of-place step against torch.optim.AdamW."""

from __future__ import annotations

import pytest
import torch

from stages.influence.adam import Adam, AdamStep

STEP = AdamStep(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, step=7)


def tensors(shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return torch.randn(shape), torch.randn(shape) * 0.1, torch.rand(shape) * 0.01, torch.randn(shape)


def torch_step(weight: torch.Tensor, m: torch.Tensor, v: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    parameter = torch.nn.Parameter(weight.double())
    optimizer = torch.optim.AdamW([parameter], lr=STEP.lr, betas=(0.9, 0.99), eps=STEP.eps, weight_decay=0.1)
    parameter.grad = gradient.double()
    optimizer.state[parameter] = {"step": torch.tensor(6.0), "exp_avg": m.double(), "exp_avg_sq": v.double()}
    optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(3,), (5, 7), (700, 400)])
def test_a_step_equals_torchs_whatever_the_block(shape: tuple[int, ...]) -> None:
    weight, m, v, gradient = tensors(shape)
    adam, out = Adam(STEP, torch.device("cpu")), torch.empty(shape)
    assert shape != (700, 400) or out.numel() > adam.block
    adam.updated(out, weight, m, v, gradient)
    torch.testing.assert_close(out.double(), torch_step(weight, m, v, gradient), rtol=1e-6, atol=1e-6)


def test_no_gradient_is_a_gradient_of_zero() -> None:
    weight, m, v, gradient = tensors((50,))
    adam, out = Adam(STEP, torch.device("cpu")), torch.empty(50)
    adam.updated(out, weight, m, v, None)
    torch.testing.assert_close(out.double(), torch_step(weight, m, v, 0 * gradient), rtol=1e-6, atol=1e-6)


def test_two_directions_differ_by_what_a_gradient_moves() -> None:
    weight, m, v, gradient = tensors((700, 400))
    truth = torch_step(weight, m, v, gradient) - torch_step(weight, m, v, 0 * gradient)
    adam, found = Adam(STEP, torch.device("cpu")), torch.empty(2, 700 * 400)
    for part, directions in adam.directions(m, v, [gradient, None]):
        found[:, part] = directions
    moves = adam.step.rate * (found[1] - found[0])
    torch.testing.assert_close(moves.double(), truth.flatten(), rtol=1e-4, atol=1e-8)


def test_a_transposed_gradient_is_read_in_the_parameters_order() -> None:
    weight, m, v, gradient = tensors((30, 20))
    adam, plain, transposed = Adam(STEP, torch.device("cpu")), torch.empty(30, 20), torch.empty(30, 20)
    adam.updated(plain, weight, m, v, gradient)
    adam.updated(transposed, weight, m, v, gradient.T.contiguous().T)
    assert torch.equal(plain, transposed)
