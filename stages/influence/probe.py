"""The probe: what one AdamW step on one candidate does to the student's loss on the reference set.

    θ'(x) = AdamW(θ, m, v, t, ∇ℓ(θ; x))        I(x) = L_R(base) − L_R(θ'(x))          positive: x helps

ℓ is the candidate's mean loss over its response tokens; L_R the reference set's mean over tokens (or rows).
The base is θ (`before_step`, arXiv 2410.14208) or θ̄, the step with a zero gradient (`zero_gradient_step`),
which leaves out the drift that momentum adds to every score alike.

`exact` evaluates L_R(θ'). `first_order` takes −∇L_R(θ̄)·(θ' − θ̄), the full Adam update against a gradient
taken once.

Memory in fp32 models: θ, m, v (shared with the caller's state), θ' in forward_dtype once `exact` or a
gradient is asked for, and 1 + gradient_groups for the reference gradient. A candidate's own gradient exists a
parameter at a time.

Not guaranteed: that rounding is the same under another packing, thread count or device; `noise` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stages.influence.adam import Adam
from stages.influence.attention import Attention
from stages.influence.dither import Dither
from stages.influence.examples import Example
from stages.influence.gradient import FirstOrderSum, ReferenceGradient, reference_gradient
from stages.influence.loss import Floats, StudentLoss, not_finite, weights_in_place
from stages.influence.packing import Batch
from stages.influence.scores import Reduction, paired_score, row_weights
from stages.influence.state import AdamState

Baseline = Literal["before_step", "zero_gradient_step"]
ForwardDtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ProbeOptions:
    """How a probe computes.

    Attributes:
        lr: the step's learning rate; None takes the checkpoint's.
        baseline: what a score is measured against.
        reduction: the reference loss's mean: over tokens or over rows.
        forward_dtype: of the weights in the exact reference pass; gradients and updates are fp32 always.
        attention: see attention.py.
        pack_tokens: tokens of a packed row.
        chunk: labels whose logits exist at once.
        gradient_groups: groups of reference rows behind first order's standard error; each is a model in memory.
        seed: of the groups.
    """

    lr: float | None = None
    baseline: Baseline = "zero_gradient_step"
    reduction: Reduction = "token"
    forward_dtype: ForwardDtype = "float32"
    attention: Attention = "segments"
    pack_tokens: int = 1024
    chunk: int = 128
    gradient_groups: int = 8
    seed: int = 0


@dataclass(frozen=True)
class FirstOrderResult:
    """First-order influence; `loss` is the candidate's own mean nll at θ. With a `reason` the score is NaN."""

    score: float
    stderr: float
    loss: float
    reason: str | None = None


@dataclass(frozen=True)
class ExactResult:
    """Exact influence; `nll` is Σ nll of every reference row at θ' [R]. With a `reason` the score is NaN."""

    score: float
    stderr: float
    loss: float
    nll: Floats
    reason: str | None = None


class Prober:
    """Scores candidates against one checkpoint and one reference set.

    Args:
        model: a Hugging Face causal LM of the checkpoint's architecture (`build_student`); the prober owns it.
        state: θ, m, v; never written.
        reference: the reference rows, at least one.
        device: where everything is kept; None leaves the model where it is.

    Raises:
        StageError: BAD_DATA if a reference loss at the base is not finite.
    """

    def __init__(
        self,
        model: Any,
        state: AdamState,
        reference: Sequence[Example],
        options: ProbeOptions | None = None,
        *,
        device: torch.device | None = None,
    ) -> None:
        self.options = options or ProbeOptions()
        self.device = device or next(model.parameters()).device
        self.state = state.to(self.device)
        self.reference = list(reference)
        self.reference_tokens = np.array([example.tokens for example in self.reference], dtype=np.int64)
        self.adam = Adam(state.next_step(self.options.lr), self.device)
        model.requires_grad_(True)
        for name, parameter in model.named_parameters():
            parameter.data = self.state.weights[name]
        self.loss = StudentLoss(
            model.to(self.device),
            attention=self.options.attention,
            pack_tokens=self.options.pack_tokens,
            chunk=self.options.chunk,
        )
        self._weights_R = row_weights(self.reference_tokens, self.options.reduction)
        self._batches = self.loss.batches(self.reference)

    @cached_property
    def base_nll(self) -> Floats:
        """Σ nll of every reference row at the base, [R]; every exact score is a difference to these."""
        nll = self.base_losses(self._batches)
        for row in np.flatnonzero(~np.isfinite(nll)):
            raise not_finite(int(row))
        return nll

    def reference_losses(self, weights: dict[str, Tensor], batches: Sequence[Batch] | None = None) -> Floats:
        """Σ nll of every reference row under `weights`, float64 [R]; `reference_tokens` holds the divisors."""
        with weights_in_place(self.loss.model, weights):
            return self.loss.sums(self._batches if batches is None else batches, len(self.reference))

    def base_losses(self, batches: Sequence[Batch], dither: Dither | None = None) -> Floats:
        """Σ nll of every reference row at the base, in any arrangement and rounding."""
        if self.options.baseline == "zero_gradient_step":
            return self.reference_losses(self._drifted(dither), batches)
        return self.reference_losses(self.start(dither), batches)

    def exact(self, example: Example) -> ExactResult:
        """Influence by a whole reference pass at θ'(x)."""
        before = self.base_nll
        weights, loss = self.step(example)
        if not math.isfinite(loss):
            return ExactResult(math.nan, math.nan, loss, np.full_like(before, math.nan), "non_finite_loss")
        after = self.reference_losses(weights)
        score, stderr = paired_score(before, after, self.reference_tokens, self.options.reduction)
        return ExactResult(score, stderr, loss, after, None if math.isfinite(score) else "non_finite_reference_loss")

    def first_order(self, example: Example) -> FirstOrderResult:
        """Influence by the reference gradient: one backward pass of the candidate."""
        return self.first_order_along(self.reference_gradient, example)

    def first_order_along(self, gradient: ReferenceGradient, example: Example) -> FirstOrderResult:
        """`first_order` with a given reference gradient."""
        gathered = FirstOrderSum(gradient, self.adam, self.state.exp_avg, self.state.exp_avg_sq)
        loss = self._backward(example, gathered.consume)
        if not math.isfinite(loss):
            return FirstOrderResult(math.nan, math.nan, loss, "non_finite_loss")
        score, stderr = gathered.result()
        score += self._drift_gain
        return FirstOrderResult(score, stderr, loss, None if math.isfinite(score) else "non_finite_gradient")

    def step(self, example: Example, dither: Dither | None = None) -> tuple[dict[str, Tensor], float]:
        """(θ'(x) in the forward dtype, the example's mean loss at θ); the next step overwrites the tensors."""

        def consume(name: str, gradient: Tensor | None) -> None:
            self._update(self._stepped, name, gradient, dither)

        loss = self._backward(example, consume)
        return self._stepped, loss

    def start(self, dither: Dither | None = None) -> dict[str, Tensor]:
        """θ in the forward dtype, so that both sides of a difference are rounded alike; the next step overwrites it."""
        for name, weight in self.state.weights.items():
            value = weight.clone()
            if dither is not None:
                dither.apply(value, self._stepped[name].dtype, name)
            self._stepped[name].copy_(value)
        return self._stepped

    @cached_property
    def reference_gradient(self) -> ReferenceGradient:
        """∇L_R(θ̄), taken on first use: about three reference passes, once."""
        return self.take_reference_gradient(self.options.gradient_groups)

    def take_reference_gradient(
        self, groups: int, *, tokens: int | None = None, dither: Dither | None = None
    ) -> ReferenceGradient:
        """∇L_R(θ̄) with `groups` group gradients; `tokens` packs, `dither` rounds otherwise."""
        with self._drifted_fp32(dither) as drifted, weights_in_place(self.loss.model, drifted):
            return reference_gradient(
                self.loss,
                self.reference,
                self._weights_R,
                groups=groups,
                seed=self.options.seed,
                tokens=tokens,
            )

    @cached_property
    def _drift_gain(self) -> float:
        """L_R(base) − L_R(θ̄): what turns a difference to θ̄ into one to the base."""
        if self.options.baseline == "zero_gradient_step":
            return 0.0
        before, drifted = self.base_nll, self.reference_losses(self._drifted())
        return float(self._weights_R @ (before - drifted))

    @cached_property
    def _stepped(self) -> dict[str, Tensor]:
        dtype = getattr(torch, self.options.forward_dtype)
        return {name: torch.empty_like(weight, dtype=dtype) for name, weight in self.state.weights.items()}

    def _drifted(self, dither: Dither | None = None) -> dict[str, Tensor]:
        """θ̄ in the forward dtype, in the tensors of `step`."""
        for name in self.state.weights:
            self._update(self._stepped, name, None, dither)
        return self._stepped

    @contextmanager
    def _drifted_fp32(self, dither: Dither | None) -> Iterator[dict[str, Tensor]]:
        if self.options.forward_dtype == "float32":
            yield self._drifted(dither)
            return
        drifted = {name: torch.empty_like(weight) for name, weight in self.state.weights.items()}
        for name in drifted:
            self._update(drifted, name, None, dither)
        yield drifted

    def _update(self, out: dict[str, Tensor], name: str, gradient: Tensor | None, dither: Dither | None) -> None:
        state = self.state
        moments = state.exp_avg[name], state.exp_avg_sq[name]
        self.adam.updated(out[name], state.weights[name], *moments, gradient, dither=dither, name=name)

    def _backward(self, example: Example, consume: Any) -> float:
        """Gives ∇ of the example's mean loss at θ to `consume`; returns that loss."""
        (batch,) = self.loss.batches([example])
        nll_L = self.loss.gradient(batch, torch.tensor([1.0 / example.tokens]), consume)
        return float(nll_L.double().mean())
