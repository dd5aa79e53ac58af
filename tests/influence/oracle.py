"""Influence straight from its formula: slow, plain, in fp64, one row at a time, the model's own attention.

Shares no code with stages.influence but the Example type and the state's numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.influence.examples import Example
from stages.influence.state import AdamState


def _rms_norm(module: Any, hidden: Tensor) -> Tensor:
    return module.weight * hidden * (hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


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

    def reference_nll(self, weights: dict[str, Tensor]) -> np.ndarray:
        """Σ nll of every reference row, [R]."""
        self._set(weights)
        with torch.no_grad():
            return np.array([self._nll(example).sum().item() for example in self.reference])

    def gradient(self, weights: dict[str, Tensor], example: Example) -> dict[str, Tensor]:
        """Gradient of the example's mean loss."""
        self._set(weights)
        self.model.zero_grad(set_to_none=True)
        self._nll(example).mean().backward()
        return {name: p.grad.clone() for name, p in self.model.named_parameters()}

    def stepped(self, gradient: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """θ after one AdamW step; without a gradient, after a step with zero gradient."""
        s, out = self.state, {}
        beta1, beta2 = s.betas
        for name, weight in s.weights.items():
            theta, m, v = weight.double(), s.exp_avg[name].double(), s.exp_avg_sq[name].double()
            g = torch.zeros_like(theta) if gradient is None else gradient[name]
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat = m / (1 - beta1 ** (s.step + 1))
            v_hat = v / (1 - beta2 ** (s.step + 1))
            decayed = theta - self.lr * s.weight_decay * theta
            out[name] = decayed - self.lr * m_hat / (v_hat.sqrt() + s.eps)
        return out

    def score(self, example: Example, *, baseline: str = "zero_gradient_step", reduction: str = "token") -> float:
        """The influence of one candidate."""
        start = {name: weight.double() for name, weight in self.state.weights.items()}
        base = start if baseline == "before_step" else self.stepped(None)
        after = self.stepped(self.gradient(start, example))
        tokens = np.array([e.tokens for e in self.reference])
        change = self.reference_nll(base) - self.reference_nll(after)
        return float(change.sum() / tokens.sum() if reduction == "token" else (change / tokens).mean())

    def scores(self, examples: Sequence[Example]) -> list[float]:
        """The influence of several candidates (token mean, against the zero-gradient step); the base is taken once."""
        base = self.reference_nll(self.stepped(None)).sum()
        start = {name: weight.double() for name, weight in self.state.weights.items()}
        tokens = sum(e.tokens for e in self.reference)
        after = (self.reference_nll(self.stepped(self.gradient(start, example))).sum() for example in examples)
        return [float((base - each) / tokens) for each in after]

    def first_order(self, example: Example) -> float:
        """−∇L_R(θ̄) · (θ' − θ̄), the reference gradient summed row by row."""
        start = {name: weight.double() for name, weight in self.state.weights.items()}
        drifted = self.stepped(None)
        stepped = self.stepped(self.gradient(start, example))
        total = sum(e.tokens for e in self.reference)
        score = 0.0
        for row in self.reference:
            gradient = self.gradient(drifted, row)
            dot = sum(torch.sum(gradient[name] * (stepped[name] - drifted[name])).item() for name in gradient)
            score -= dot * row.tokens / total
        return score

    def _set(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    def _nll(self, example: Example) -> Tensor:
        logits_TV = self.model(torch.tensor([example.ids[:-1]], device=self.device)).logits[0].double()
        labels_T = torch.tensor(example.ids[1:], device=self.device)
        return torch.nn.functional.cross_entropy(logits_TV, labels_T, reduction="none")[example.labels_from - 1 :]
