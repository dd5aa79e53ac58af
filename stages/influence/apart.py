"""Gradients of several examples from one backward pass, each example's apart (arXiv 1510.01799).

A short example alone makes short matrices, whose products and elementwise parts run well below what the machine can do.
Here examples lie end to end in one row, as in a reference pass; all that is done for each of them is the product that
gives a weight's gradient, over its own tokens. What that leaves of a module's gradient is handed over at once, so that
no example's gradient is ever there as a whole.

Only where every parameter belongs to one module of a kind that is known here, called once in a pass: linear layers,
Llama's norms (lean.py), the embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.influence.lean import is_lean_norm, norm_backward, norm_forward

ApartConsumer = Callable[[str, Sequence[Tensor | None]], None]


class Apart:
    """A model whose modules can hand over gradients by example; elsewhere they do as before."""

    def __init__(self, model: Any) -> None:
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._anchor = torch.zeros((), requires_grad=True)  # the embedding's output needs something to depend on
        self._lengths: tuple[int, ...] = ()
        self._consume: ApartConsumer | None = None
        self._embedding_VD = model.get_input_embeddings().weight
        self.tied = model.get_output_embeddings().weight is self._embedding_VD
        self._words_EVD = self._embedding_VD.new_empty(0)
        for module in _inside(model):
            if kind := _kind(module):
                module.forward = partial(kind, self, module, module.forward)

    def words(self, examples: int) -> Tensor:
        """Room for gradients of the embedding, or of a head of its shape [examples, V, D].

        Kept, because memory that is new each time costs more than what is computed into it.
        """
        if len(self._words_EVD) < examples:
            self._words_EVD = self._embedding_VD.new_empty(examples, *self._embedding_VD.shape)
        return self._words_EVD[:examples]

    @contextmanager
    def taking(self, lengths: tuple[int, ...], consume: ApartConsumer) -> Iterator[None]:
        """Inside the block a backward pass over one row of examples of these lengths hands gradients to `consume`."""
        self._lengths, self._consume = lengths, consume
        try:
            yield
        finally:
            self._lengths, self._consume = (), None

    def split(self, of_tokens: Tensor) -> Sequence[Tensor]:
        """Each example's tokens [T_example, size] of [1, T, size]."""
        return of_tokens.flatten(0, -2).split(self._lengths)

    def take(self, parameter: Tensor, gradients: Sequence[Tensor]) -> None:
        assert self._consume is not None
        self._consume(self._names[id(parameter)], gradients)

    def linear(self, module: Any, plain: Any, hidden: Tensor) -> Tensor:
        return _Linear.apply(hidden, module, self) if self._lengths else plain(hidden)

    def norm(self, module: Any, plain: Any, hidden: Tensor) -> Tensor:
        return _Norm.apply(hidden, module, self) if self._lengths else plain(hidden)

    def embedding(self, module: Any, plain: Any, ids: Tensor) -> Tensor:
        return _Embedding.apply(self._anchor, ids, module, self) if self._lengths else plain(ids)


def apart(model: Any, passing: Callable[[], Any]) -> Apart | None:
    """`Apart` of a Hugging Face causal LM, or None where it has what is not known here; `passing` runs one pass."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    inside = _inside(model)
    with_weights = [module for module in inside if list(module.parameters(recurse=False))]
    owners = Counter(id(parameter) for module in inside for parameter in module.parameters(recurse=False))
    of_head = {id(parameter) for parameter in head.parameters()} - {id(embedding.weight)}
    if (
        any(_kind(module) is None for module in with_weights)
        or any(type(module) is torch.nn.Embedding and module is not embedding for module in with_weights)
        or (embedding.max_norm is not None or embedding.scale_grad_by_freq)
        or head.weight.shape != embedding.weight.shape
        or of_head & owners.keys()
        or max(owners.values()) > 1
    ):
        return None
    calls: Counter[Any] = Counter()
    handles = [module.register_forward_hook(lambda module, *_: calls.update([module])) for module in with_weights]
    passing()
    for handle in handles:
        handle.remove()
    return Apart(model) if max(calls.values()) == 1 else None


def _inside(model: Any) -> list[Any]:
    """All modules but the head, which is no module call (head.py)."""
    return [module for module in model.modules() if module is not model.get_output_embeddings()]


def _kind(module: Any) -> Callable[..., Tensor] | None:
    if is_lean_norm(module):
        return Apart.norm
    return {torch.nn.Linear: Apart.linear, torch.nn.Embedding: Apart.embedding}.get(type(module))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, module: Any, apart: Apart) -> Tensor:
        ctx.module, ctx.apart = module, apart
        ctx.save_for_backward(hidden)
        return F.linear(hidden, module.weight, module.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        module, apart = ctx.module, ctx.apart
        grads, inputs = apart.split(grad), apart.split(ctx.saved_tensors[0])
        apart.take(module.weight, [one.T @ other for one, other in zip(grads, inputs, strict=True)])
        if module.bias is not None:
            apart.take(module.bias, [each.sum(0) for each in grads])
        return grad @ module.weight, None, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, module: Any, apart: Apart) -> Tensor:
        ctx.module, ctx.apart = module, apart
        out, scale = norm_forward(hidden, module.weight, module.variance_epsilon)
        ctx.save_for_backward(hidden, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight_D, (hidden, scale) = ctx.module.weight, ctx.saved_tensors
        of_hidden, product = norm_backward(grad, hidden, scale, weight_D)
        ctx.apart.take(weight_D, [each.sum(0) for each in ctx.apart.split(product)])
        return of_hidden, None, None


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, ids: Tensor, module: Any, apart: Apart) -> Tensor:
        ctx.module, ctx.apart = module, apart
        ctx.save_for_backward(ids)
        return F.embedding(ids, module.weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:
        apart, (ids,) = ctx.apart, ctx.saved_tensors
        if ctx.module.padding_idx is not None:  # a word that its embedding does not learn from
            grad = grad.masked_fill((ids == ctx.module.padding_idx)[..., None], 0)
        rows, grads = apart.split(ids[..., None]), apart.split(grad)
        words_EVD = apart.words(len(grads))
        if not apart.tied:  # else the head's gradient is there
            words_EVD.zero_()
        for words_VD, own, each in zip(words_EVD, rows, grads, strict=True):
            words_VD.index_add_(0, own[:, 0], each)
        apart.take(ctx.module.weight, list(words_EVD))
        return None, None, None, None
