"""Cross-entropy straight from hidden states, without ever holding more of [labels, vocabulary] than `chunk` labels
have.

The gradient is computed with the loss, chunk by chunk, while the chunk's probabilities exist: nothing is stored and
nothing computed twice (the idea of Liger's fused linear cross-entropy, arXiv 2410.10989). Autograd begins below the
head, at the hidden states: a head that is tied to the embedding needs no second pass over the vocabulary to add both
gradients, and of a partitioned model the head is whole only while it is used.

Shapes: L labels, D hidden size, V vocabulary, E examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stages.contract.errors import ExitCode, StageError


@dataclass(frozen=True)
class HeadShape:
    """What a model does to hidden @ weight.T + bias before the softmax."""

    scale: float = 1.0
    softcap: float | None = None

    @staticmethod
    def of(config: Any) -> HeadShape:
        """From a Hugging Face config: Gemma caps, Cohere multiplies, Granite divides."""
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        return HeadShape(scale, getattr(config, "final_logit_softcapping", None))

    def apply(self, logits: Tensor) -> Tensor:
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def pull_back(self, grad: Tensor, logits: Tensor) -> Tensor:
        """Gradient before `apply`, given the gradient after it and the values after it."""
        if self.softcap is not None:
            grad = grad * (1 - (logits / self.softcap) ** 2)
        return grad * self.scale if self.scale != 1.0 else grad


def cross_entropy(
    hidden_LD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    labels_L: Tensor,
    *,
    chunk: int,
    shape: HeadShape,
) -> Tensor:
    """−log p of each label, [L] in fp32, no gradient.

    All labels against some of the words at a time, with a running sum (arXiv 1805.02867), in the room of the logits of
    `chunk` labels: the weights are read once, not once for each chunk.
    """
    words = max(1, chunk * len(weight_VD) // max(1, len(labels_L)))
    highest_L = torch.full(labels_L.shape, -torch.inf, device=hidden_LD.device)
    total_L, own_L = torch.zeros_like(highest_L), torch.zeros_like(highest_L)
    for start in range(0, len(weight_VD), words):
        weight = weight_VD[start : start + words]
        bias = None if bias_V is None else bias_V[start : start + words]
        logits = shape.apply(F.linear(hidden_LD, weight, bias).float())
        place_L = labels_L - start
        inside_L = (place_L >= 0) & (place_L < len(weight))
        found_L = logits.gather(1, place_L.clamp(0, len(weight) - 1)[:, None])[:, 0]
        own_L = torch.where(inside_L, found_L, own_L)
        peak_L = torch.maximum(highest_L, logits.amax(1))
        total_L.mul_((highest_L - peak_L).exp_()).add_(logits.sub_(peak_L[:, None]).exp_().sum(1))
        highest_L = peak_L
    return total_L.log_().add_(highest_L).sub_(own_L)


@dataclass(frozen=True)
class HeadGradients:
    """nll [L], and the gradients of Σ coefficient·nll for what the head computes it from: the weights' by example."""

    nll_L: Tensor
    hidden_LD: Tensor
    weight_EVD: Tensor
    bias_EV: Tensor | None


@torch.no_grad()
def head_gradients(
    hidden_LD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    labels_L: Tensor,
    coefficient_L: Tensor,
    *,
    chunk: int,
    shape: HeadShape,
    labels_E: Sequence[int] | None = None,
    into_EVD: Tensor | None = None,
) -> HeadGradients:
    """Losses and gradients of Σ coefficient·nll, in fp32.

    `labels_E`: how many labels each of E examples has, in their order; None takes all for one example's. `into_EVD`:
    where the weights' gradients go, if not to a new tensor.
    """
    ends_E = list(accumulate(labels_E or [len(labels_L)]))
    grad_hidden_LD = torch.empty_like(hidden_LD)
    grad_weight_EVD = weight_VD.new_empty(len(ends_E), *weight_VD.shape) if into_EVD is None else into_EVD
    grad_bias_EV = None if bias_V is None else bias_V.new_zeros(len(ends_E), *bias_V.shape)
    nll_L = torch.empty(len(labels_L), dtype=torch.float32, device=hidden_LD.device)
    for start in range(0, len(labels_L), chunk):
        part = slice(start, start + chunk)
        hidden, labels = hidden_LD[part], labels_L[part]
        logits = shape.apply(F.linear(hidden, weight_VD, bias_V).float())
        # Not log_softmax: on a CPU it adds one word after the other to a sum that is too large to feel the rare ones,
        # which biases a gradient by 1e-4 of itself, the same under every rounding, so that no σ sees it. `sum` adds in
        # a tree; and the others' sum is also what is left of a label that has nearly all, where 1 − p would cancel.
        words_L = labels[:, None]
        peak_L = logits.amax(1)
        label_L = logits.gather(1, words_L)[:, 0]
        grad = logits.sub(peak_L[:, None]) if shape.softcap is not None else logits.sub_(peak_L[:, None])
        own_L = grad.exp_().gather(1, words_L)[:, 0]
        others_L = grad.scatter_(1, words_L, 0.0).sum(1)
        total_L = others_L + own_L
        nll_L[part] = total_L.log().add_(peak_L).sub_(label_L)
        scale_L = coefficient_L[part] / total_L
        grad.mul_(scale_L[:, None]).scatter_(1, words_L, -(scale_L * others_L)[:, None])
        grad = shape.pull_back(grad, logits).to(weight_VD.dtype)
        torch.mm(grad, weight_VD, out=grad_hidden_LD[part])
        for example, (begin, end) in enumerate(zip([0, *ends_E], ends_E, strict=False)):
            own = slice(max(begin, start) - start, max(min(end, start + chunk) - start, 0))
            if own.start >= own.stop:
                continue
            into = grad_weight_EVD[example]
            # The first chunk overwrites what was there: zeros would be one more pass over the vocabulary.
            torch.addmm(into, grad[own].T, hidden[own], beta=float(start > begin), out=into)
            if grad_bias_EV is not None:
                grad_bias_EV[example] += grad[own].sum(0)
    return HeadGradients(nll_L, grad_hidden_LD, grad_weight_EVD, grad_bias_EV)


def head_of(model: Any) -> tuple[Tensor, Tensor | None]:
    """(weight_VD, bias_V) of a causal language model's output layer.

    Raises:
        StageError: BAD_SETTINGS if the model has none.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise StageError(
            f"{type(model).__name__} has no output embeddings",
            code=ExitCode.BAD_SETTINGS,
            hint="use a causal LM",
        )
    return head.weight, getattr(head, "bias", None)
