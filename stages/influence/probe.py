"""The probe: what one AdamW step on one candidate does to the student's loss on the reference set.

    θ'(x) = AdamW(θ, m, v, t, ∇ℓ(θ; x))        I(x) = L_R(base) − L_R(θ'(x))          positive: x helps

ℓ is the candidate's mean loss over its response tokens; L_R the reference set's mean over tokens (or rows).
The base is θ (`before_step`, arXiv 2410.14208) or θ̄, the step with a zero gradient (`zero_gradient_step`),
which leaves out the drift that momentum adds to every score alike.

`exact` evaluates L_R(θ'). `first_order` takes −∇L_R(θ̄)·(θ' − θ̄), the full Adam update against a gradient taken once.
`corrected` adds to it what the linearisation misses, measured exactly on some groups of reference rows and carried over
to the others: a difference estimator (Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 6.3).

Over several ranks (ranks.py) θ, m, v, θ' and the gradients are partitioned, reference rows are dealt out, and so are
the candidates of first order; for `exact` every rank computes the candidate's gradient and keeps its own part.

Memory in fp32 models: θ, m, v (shared with the caller's state), θ' in forward_dtype once `exact` or a
gradient is asked for, and 1 + gradient_groups for the reference gradient. A candidate's own gradient exists a
parameter at a time. memory.py says it in bytes.

Not guaranteed: that rounding is the same under another packing, thread count, device or number of ranks; `noise`
measures it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.influence.adam import Adam
from stages.influence.dither import Dither
from stages.influence.examples import Example, within_context
from stages.influence.gradient import FirstOrderSums, ReferenceGradient, group_rows, reference_gradient
from stages.influence.graphs import Graphs, Work
from stages.influence.loss import StudentLoss, not_finite
from stages.influence.matmul import spacing
from stages.influence.memory import together
from stages.influence.packing import Batch
from stages.influence.ranks import Alone, Ranks, deal, sum_over
from stages.influence.results import ExactResult, FirstOrderResult, ProbeOptions
from stages.influence.scores import Floats, paired_score, row_weights, standard_error
from stages.influence.state import AdamState


@dataclass(frozen=True)
class Linearised:
    """A reference gradient, and its products with the zero-gradient step [1 + K]."""

    gradient: ReferenceGradient
    at_zero: Floats


class Prober:
    """Scores candidates against one checkpoint and one reference set.

    Args:
        model: a Hugging Face causal LM of the checkpoint's architecture (`build_student`); the prober owns it.
        state: θ, m, v (this rank's part of them); the same afterwards.
        reference: the reference rows, at least one.
        device: where everything is kept; None leaves the model where it is.
        ranks: the processes that share the work; all of them make the same calls.

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
        ranks: Ranks | None = None,
    ) -> None:
        self.options = options or ProbeOptions()
        self.ranks = ranks or Alone()
        self.device = device or next(model.parameters()).device
        self.state = state.to(self.device)
        self.reference = list(reference)
        self.reference_tokens = np.array([example.tokens for example in self.reference], dtype=np.int64)
        self.adam = Adam(state.next_step(self.options.lr), self.device)
        model.requires_grad_(True)
        self.ranks.install(model, self.state.weights, self.device)
        self.loss = StudentLoss(
            model,
            attention=self.options.attention,
            pack_tokens=self.options.pack_tokens,
            chunk=self.options.chunk,
            products=self.options.products,
            gradient_checkpointing=self.options.gradient_checkpointing,
            ranks=self.ranks,
        )
        self.spacing = spacing(self.options.products, self.device)  # of the numbers that the reference pass multiplies
        self._rounding = Dither(self.options.seed, "score", self.spacing)
        self._weights_R = row_weights(self.reference_tokens, self.options.reduction)
        self._batches = self.loss.batches(self.reference)
        # Checkpointed layers read the random generator's state, which no graph can; ranks wait for one another.
        captured = self.options.cuda_graphs and not self.options.gradient_checkpointing and self.ranks.count == 1
        self._graphs = Graphs(self.device, within_context(model.config), wanted=captured)
        self._at_start = True  # whether the model has the weights that it was given

    @cached_property
    def base_nll(self) -> Floats:
        """Σ nll of every reference row at the base, [R]; every exact score is a difference to these."""
        nll = self.base_losses(self._batches)
        for row in np.flatnonzero(~np.isfinite(nll)):
            raise not_finite(int(row))
        return nll

    def reference_losses(self, weights: dict[str, Tensor], batches: Sequence[Batch] | None = None) -> Floats:
        """Σ nll of every reference row under `weights`, float64 [R]; `reference_tokens` holds the divisors.

        A row that no batch holds has 0.
        """
        batches = self._batches if batches is None else batches
        usual = next((name for name in ("_batches", "_corrected_batches") if batches is self.__dict__.get(name)), None)
        if self._graphs.on and usual and weights is self._stepped:
            with self.at(weights):
                (found_R,) = self._graphs.again(usual, lambda: (self.loss.sums_there(batches, len(self.reference)),))
            nll: Floats = found_R.to("cpu", copy=True).numpy()
            return nll
        mine, idle = deal(self.ranks, batches)
        with self.at(weights):
            found = self.loss.sums(mine[: len(mine) - idle], len(self.reference))
            self.loss.sums(mine[len(mine) - idle :], len(self.reference))
        return self.ranks.sum(found)

    def base_losses(self, batches: Sequence[Batch], dither: Dither | None = None) -> Floats:
        """Σ nll of every reference row at the base, in any arrangement and rounding."""
        if self.options.baseline == "zero_gradient_step":
            return self.drifted_losses(batches, dither)
        return self.reference_losses(self.start(dither), batches)

    def drifted_losses(self, batches: Sequence[Batch], dither: Dither | None = None) -> Floats:
        """Σ nll of every reference row at θ̄, likewise."""
        return self.reference_losses(self._drifted(dither), batches)

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
        return self.first_orders([example])[0]

    def first_orders(self, examples: Sequence[Example]) -> list[FirstOrderResult]:
        """`first_order` of several candidates: ranks take different ones."""
        return self.first_orders_along(self.linearised, examples)

    def first_orders_along(self, linear: Linearised, examples: Sequence[Example]) -> list[FirstOrderResult]:
        """`first_orders` with a given reference gradient."""
        if self._together > 1:
            groups = self._side_by_side(examples)
            return [found for group in groups for found in self._first_orders_apart(linear, group)]
        count = self.ranks.count
        starts = range(0, len(examples), count)
        return [found for start in starts for found in self._first_order_round(linear, examples[start : start + count])]

    def correct(self, first: FirstOrderResult, after: Floats) -> tuple[float, float]:
        """(corrected score, standard error) from a first-order result and Σ nll at θ' of `corrected_rows` at least.

        The error is over reference rows, as in `first_order`, and over the choice of the groups. NaN without groups.
        """
        if not self.corrected_rows:
            return math.nan, math.nan
        rows = [np.array(group) for group in self.linearised.gradient.rows[: self.options.corrected_groups]]
        shares = self.linearised.gradient.shares
        exact = np.array([self._weights_R[group] @ (self._drifted_nll[group] - after[group]) for group in rows])
        misses, seen = exact - first.groups[: len(rows)], shares[: len(rows)]
        correction = float(misses.sum() / seen.sum())
        # The finite population correction: with all groups seen nothing is carried over.
        unseen = 1 - float(seen.sum() / shares.sum())
        error = standard_error(misses / seen.sum(), seen / seen.sum()) * math.sqrt(unseen) if unseen else 0.0
        return first.score + correction, math.hypot(first.stderr, error)

    def corrected(self, example: Example, first: FirstOrderResult) -> ExactResult:
        """First order corrected by an exact pass over `corrected_rows`; `nll` is NaN elsewhere."""
        blank = np.full(len(self.reference), math.nan)
        weights, loss = self.step(example)
        if not math.isfinite(loss) or first.reason:
            return ExactResult(math.nan, math.nan, loss, blank, first.reason or "non_finite_loss")
        after = self.reference_losses(weights, self._corrected_batches)
        score, stderr = self.correct(first, after)
        blank[self.corrected_rows] = after[self.corrected_rows]
        return ExactResult(score, stderr, loss, blank, None if math.isfinite(score) else "non_finite_reference_loss")

    @cached_property
    def corrected_rows(self) -> list[int]:
        """The reference rows that `corrected` evaluates; none without groups, or where all of them are asked for."""
        if not self.options.corrects(len(self.reference)):
            return []
        dealt = group_rows(len(self.reference), self.options.gradient_groups, self.options.seed)
        return sorted(row for group in dealt[: self.options.corrected_groups] for row in group)

    def step(self, example: Example, dither: Dither | None = None) -> tuple[dict[str, Tensor], float]:
        """(θ'(x) in the forward dtype, the example's mean loss at θ); the next step overwrites the tensors."""

        def consume(name: str, gradient: Tensor | None) -> None:
            own = None if gradient is None else self.ranks.own(gradient)
            self._update(self._stepped, name, own, dither or self._rounding)

        def work(batch: Batch, weights_R: Tensor) -> tuple[Tensor, ...]:
            return (self.loss.gradient(batch, weights_R, consume),)

        loss, _ = self._backward(example, work, "step" if dither is None else None)
        return self._stepped, loss

    def dithered(self, dither: Dither) -> dict[str, Tensor]:
        """θ in fp32, its rounding drawn anew: where a gradient is taken to see what rounding does to it."""
        weights = {name: torch.empty_like(weight) for name, weight in self.state.weights.items()}
        return self._rounded(weights, dither)

    def start(self, dither: Dither | None = None) -> dict[str, Tensor]:
        """θ in the forward dtype, so that both sides of a difference are rounded alike; the next step overwrites it."""
        return self._rounded(self._stepped, dither or self._rounding)

    def _rounded(self, out: dict[str, Tensor], dither: Dither) -> dict[str, Tensor]:
        for name, weight in self.state.weights.items():
            self.adam.rounded(out[name], weight, dither, self._key(name))
        return out

    @cached_property
    def linearised(self) -> Linearised:
        """∇L_R(θ̄), taken on first use: about three reference passes, once."""
        return self.linearise(self.options.gradient_groups)

    def linearise(self, groups: int, *, tokens: int | None = None, dither: Dither | None = None) -> Linearised:
        """∇L_R(θ̄) with `groups` group gradients; `tokens` packs, `dither` rounds otherwise."""
        with self._drifted_in_place(dither):
            gradient = reference_gradient(
                self.loss,
                self.reference,
                self._weights_R,
                {name: weight.numel() for name, weight in self.state.weights.items()},
                groups=groups,
                seed=self.options.seed,
                tokens=tokens,
                dtype=getattr(torch, self.options.gradient_dtype),
                dither=dither,
            )
        products = self._products(gradient)
        for name in self.state.weights:
            products.consume(name, [None])
        return Linearised(gradient, self.ranks.sum(products.there()[0].cpu().numpy()))

    @contextmanager
    def at(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """The model computes with other weights inside the block."""
        before, self._at_start = self._at_start, False
        try:
            with self.ranks.using(self.loss.model, weights):
                yield
        finally:
            self._at_start = before

    @property
    def _together(self) -> int:
        """Candidates whose first order one backward pass takes: one where the student is not known to apart.py."""
        count = together(self.device.type, self.ranks.count)
        # A graph works on one: it is of a length, and of many candidates there are many.
        return count if count > 1 and not self._graphs.on and self.loss.apart else 1

    def _side_by_side(self, examples: Sequence[Example]) -> Iterator[list[Example]]:
        """Examples in their order, as many as fit a packed row."""
        group: list[Example] = []
        for example in examples:
            tokens = sum(len(each.ids) for each in [*group, example])
            if group and (tokens > self.options.pack_tokens or len(group) == self._together):
                yield group
                group = []
            group.append(example)
        if group:
            yield group

    def _first_orders_apart(self, linear: Linearised, examples: Sequence[Example]) -> list[FirstOrderResult]:
        """Of examples that one backward pass takes."""
        products = self._products(linear.gradient)
        (batch,) = self.loss.batches(examples, tokens=sum(len(each.ids) for each in examples))
        nll_L = self.loss.gradients(batch, torch.tensor([1.0 / each.tokens for each in examples]), products.consume)
        sums = products.there().cpu().numpy()
        found: dict[int, FirstOrderResult] = {}
        for place, row in enumerate(batch.row_L.unique_consecutive().tolist()):
            loss = float(nll_L[batch.row_L == row].double().mean())
            found[row] = self._first_order_result(linear, loss, sums[place])
        return [found[row] for row in range(len(examples))]

    def _first_order_round(self, linear: Linearised, examples: Sequence[Example]) -> list[FirstOrderResult]:
        """A candidate a rank; a rank without one repeats the first, to keep in step."""
        count, rank = self.ranks.count, self.ranks.rank

        def work(batch: Batch, weights_R: Tensor) -> tuple[Tensor, ...]:
            products = self._products(linear.gradient)

            def consume(name: str, gradient: Tensor | None) -> None:
                products.consume(name, [None] * count if gradient is None else list(self.ranks.spread(gradient)))

            nll_L = self.loss.gradient(batch, weights_R, consume)
            return nll_L, products.there()

        own = examples[rank] if rank < len(examples) else examples[0]
        loss, (products,) = self._backward(own, work, ("first order", id(linear)))
        mine = np.zeros(count)
        mine[rank] = loss
        losses, *found = sum_over(self.ranks, [mine, *products.cpu().numpy()])
        return [self._first_order_result(linear, *each) for each in zip(losses, found, strict=True)][: len(examples)]

    def _first_order_result(self, linear: Linearised, loss: float, products: Floats) -> FirstOrderResult:
        if not math.isfinite(loss):
            return FirstOrderResult(math.nan, math.nan, float(loss), "non_finite_loss")
        gains = self.adam.step.rate * (products - linear.at_zero)
        score, groups = float(gains[0] + self._drift_R.sum()), gains[1:]
        drifts = np.array([self._drift_R[rows].sum() for rows in linear.gradient.rows])
        stderr = standard_error(groups + drifts, linear.gradient.shares)
        reason = None if math.isfinite(score) else "non_finite_gradient"
        return FirstOrderResult(score, stderr, float(loss), reason, groups)

    def _products(self, gradient: ReferenceGradient) -> FirstOrderSums:
        candidates = max(self._together, self.ranks.count)
        return FirstOrderSums(gradient, self.adam, self.state.exp_avg, self.state.exp_avg_sq, candidates)

    @cached_property
    def _drift_R(self) -> Floats:
        """What each row adds to L_R(base) − L_R(θ̄) [R], which turns a difference to θ̄ into one to the base."""
        if self.options.baseline == "zero_gradient_step":
            return np.zeros(len(self.reference))
        return self._weights_R * (self.base_nll - self._drifted_nll)

    @cached_property
    def _drifted_nll(self) -> Floats:
        """Σ nll of every reference row at θ̄ [R]."""
        if self.options.baseline == "zero_gradient_step":
            return self.base_nll
        return self.drifted_losses(self._batches)

    @cached_property
    def _corrected_batches(self) -> list[Batch]:
        """`corrected_rows`, packed; their labels belong to rows of the whole reference."""
        rows = torch.tensor(self.corrected_rows, device=self.device)
        batches = self.loss.batches([self.reference[row] for row in self.corrected_rows])
        return [replace(batch, row_L=rows[batch.row_L]) for batch in batches]

    @cached_property
    def _stepped(self) -> dict[str, Tensor]:
        dtype = getattr(torch, self.options.forward_dtype)
        return {name: torch.empty_like(weight, dtype=dtype) for name, weight in self.state.weights.items()}

    def _drifted(self, dither: Dither | None = None) -> dict[str, Tensor]:
        """θ̄ in the forward dtype, in the tensors of `step`."""
        for name in self.state.weights:
            self._update(self._stepped, name, None, dither or self._rounding)
        return self._stepped

    @contextmanager
    def _drifted_in_place(self, dither: Dither | None) -> Iterator[None]:
        """θ̄ in fp32 where θ is. θ waits in the host's memory, and a GPU's m and v too: beside the sums of a gradient it
        has no room for them."""
        kept = {name: weight.to("cpu", copy=True) for name, weight in self.state.weights.items()}
        moments = (self.state.exp_avg, self.state.exp_avg_sq) if self.device.type != "cpu" else ()
        try:
            for name in kept:
                self._update(self.state.weights, name, None, dither)
            for each in moments:
                each.update({name: tensor.to("cpu") for name, tensor in each.items()})
            yield
        finally:
            for name, weight in kept.items():
                self.state.weights[name].copy_(weight)
            for each in moments:
                each.update({name: tensor.to(self.device) for name, tensor in each.items()})
            self._graphs.clear()

    def _update(self, out: dict[str, Tensor], name: str, gradient: Tensor | None, dither: Dither | None) -> None:
        state = self.state
        moments = state.exp_avg[name], state.exp_avg_sq[name]
        self.adam.updated(out[name], state.weights[name], *moments, gradient, dither=dither, name=self._key(name))

    def _key(self, name: str) -> str:
        """What a part's dither is drawn by."""
        return name if self.ranks.count == 1 else f"{name}@{self.ranks.rank}"

    def _backward(self, example: Example, work: Work, key: Hashable | None) -> tuple[float, Sequence[Tensor]]:
        """(the example's mean loss at θ, what else `work` returns beside its nll); a graph of it is kept by the key."""
        (batch,) = self.loss.batches([example])
        weights_R = torch.tensor([1.0 / example.tokens], device=self.device)
        if key is not None and self._at_start:
            nll_L, *others = self._graphs.step(key, batch, weights_R, work)
        else:
            nll_L, *others = work(batch, weights_R)
        return float(nll_L[: example.tokens].double().mean()), others
