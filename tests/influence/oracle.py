"""Influence straight from its formula: slow, plain, in fp64, one row at a time, the model's own attention.

Shares no code with stages.influence but the Example type and the state's numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.influence.examples import Example
from stages.influence.state import AdamState

_BLOCK = 1 << 22  # elements


def _rms_norm(module: Any, hidden: Tensor) -> Tensor:
    return module.weight * hidden * (hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


class Weights(Mapping[str, Tensor]):
    """By name, each made when it is asked for: of a large student's, one set in fp64 fits and a second does not."""

    def __init__(self, names: Sequence[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = names, make

    def __getitem__(self, name: str) -> Tensor:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Oracle:
    """The truth for one checkpoint and one reference set; `model` is copied, and says on which device."""

    def __init__(self, model: Any, state: AdamState, reference: Sequence[Example], *, lr: float) -> None:
        self.model = copy.deepcopy(model).double().eval()
        for module in self.model.modules():
            if hasattr(module, "variance_epsilon"):
                # transformers' own forward goes through fp32, whatever the model's dtype is
                module.forward = partial(_rms_norm, module)
        self.device = next(model.parameters()).device
        self.state, self.reference, self.lr = state.to(self.device), reference, lr

    @property
    def start(self) -> Weights:
        """θ."""
        return Weights(list(self.state.weights), lambda name: self.state.weights[name].double())

    def reference_nll(self, weights: Mapping[str, Tensor]) -> np.ndarray:
        """Σ nll of every reference row, [R]."""
        self._set(weights)
        with torch.no_grad():
            return np.array([self._nll(example).sum().item() for example in self.reference])

    def gradient(self, weights: Mapping[str, Tensor], example: Example) -> dict[str, Tensor]:
        """Gradient of the example's mean loss."""
        self._set(weights)
        self.model.zero_grad(set_to_none=True)  # the last one stays its caller's
        self._nll(example).mean().backward()
        return {name: p.grad for name, p in self.model.named_parameters()}

    def stepped(self, gradient: Mapping[str, Tensor] | None) -> Weights:
        """θ after one AdamW step; without a gradient, after a step with zero gradient."""
        s = self.state
        beta1, beta2 = s.betas

        def elements(theta: Tensor, m: Tensor, v: Tensor, g: Tensor) -> Tensor:
            theta, m, v = theta.double(), m.double(), v.double()
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat = m / (1 - beta1 ** (s.step + 1))
            v_hat = v / (1 - beta2 ** (s.step + 1))
            decayed = theta - self.lr * s.weight_decay * theta
            return decayed - self.lr * m_hat / (v_hat.sqrt() + s.eps)

        def after(name: str) -> Tensor:
            out = torch.zeros_like(s.weights[name], dtype=torch.float64)
            g = out if gradient is None else gradient[name]
            # Block by block: beside a large student there is no room for what stands between the lines above.
            for block in zip(
                *(
                    each.view(-1).split(_BLOCK)
                    for each in (out, s.weights[name], s.exp_avg[name], s.exp_avg_sq[name], g)
                ),
                strict=True,
            ):
                block[0].copy_(elements(*block[1:]))
            return out

        return Weights(list(s.weights), after)

    def score(self, example: Example, *, baseline: str = "zero_gradient_step", reduction: str = "token") -> float:
        """The influence of one candidate."""
        base = self.start if baseline == "before_step" else self.stepped(None)
        after = self.stepped(self.gradient(self.start, example))
        tokens = np.array([e.tokens for e in self.reference])
        change = self.reference_nll(base) - self.reference_nll(after)
        return float(change.sum() / tokens.sum() if reduction == "token" else (change / tokens).mean())

    def scores(self, examples: Sequence[Example]) -> list[float]:
        """The influence of several candidates (token mean, against the zero-gradient step); the base is taken once."""
        base = self.reference_nll(self.stepped(None)).sum()
        tokens = sum(e.tokens for e in self.reference)
        after = (self.reference_nll(self.stepped(self.gradient(self.start, example))).sum() for example in examples)
        return [float((base - each) / tokens) for each in after]

    def first_order(self, example: Example) -> float:
        """−∇L_R(θ̄) · (θ' − θ̄), the reference gradient summed row by row."""
        drifted = self.stepped(None)
        stepped = self.stepped(self.gradient(self.start, example))
        total = sum(e.tokens for e in self.reference)
        score = 0.0
        for row in self.reference:
            gradient = self.gradient(drifted, row)
            dot = sum(torch.sum(gradient[name] * (stepped[name] - drifted[name])).item() for name in gradient)
            score -= dot * row.tokens / total
        return score

    def _set(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    def _nll(self, example: Example) -> Tensor:
        logits_TV = self.model(torch.tensor([example.ids[:-1]], device=self.device)).logits[0].double()
        labels_T = torch.tensor(example.ids[1:], device=self.device)
        return torch.nn.functional.cross_entropy(logits_TV, labels_T, reduction="none")[example.labels_from - 1 :]
