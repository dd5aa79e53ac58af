"""How a probe computes, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stages.influence.attention import Attention
from stages.influence.matmul import Products
from stages.influence.scores import Floats, Reduction

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
        products: how that pass multiplies fp32 matrices; see matmul.py.
        gradient_dtype: in which the reference gradient is kept once it is summed (in fp32).
        attention: see attention.py.
        pack_tokens: tokens of a packed row.
        chunk: labels whose logits exist at once.
        gradient_groups: groups of reference rows behind first order's standard error; each is a model in memory.
        corrected_groups: of these, the groups on which `corrected` evaluates.
        gradient_checkpointing: layers are computed again in the backward pass, for less memory.
        cuda_graphs: on a GPU kernels are asked for together; see graphs.py.
        seed: of the groups, and of the rounding to a coarser dtype or product (dither.py).
    """

    lr: float | None = None
    baseline: Baseline = "zero_gradient_step"
    reduction: Reduction = "token"
    forward_dtype: ForwardDtype = "float32"
    products: Products = "fp32"
    gradient_dtype: ForwardDtype = "float32"
    attention: Attention = "segments"
    pack_tokens: int = 1024
    chunk: int = 256
    gradient_groups: int = 8
    corrected_groups: int = 2
    gradient_checkpointing: bool = False
    cuda_graphs: bool = True
    seed: int = 0

    def corrects(self, reference_rows: int) -> bool:
        """Whether `corrected` has groups to evaluate on and others to carry over to."""
        return 2 <= self.corrected_groups < self.gradient_groups <= reference_rows


@dataclass(frozen=True)
class FirstOrderResult:
    """First-order influence; `loss` is the candidate's own mean nll at θ. With a `reason` the score is NaN.

    `groups` is what each group of reference rows contributes to the score, against θ̄ [K].
    """

    score: float
    stderr: float
    loss: float
    reason: str | None = None
    groups: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class ExactResult:
    """Exact influence; `nll` is Σ nll of every reference row at θ' [R]. With a `reason` the score is NaN."""

    score: float
    stderr: float
    loss: float
    nll: Floats
    reason: str | None = None
