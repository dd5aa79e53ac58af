"""The numerical noise floor σ of a score: how much rounding alone moves it.

The same step is evaluated with the reference rows packed otherwise and every rounding drawn anew (dither.py
says why other packs alone are not enough); σ is the standard deviation of the score. It knows nothing of
sampling: that is the standard error's part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.influence.dither import Dither
from stages.influence.examples import Example
from stages.influence.loss import weights_in_place
from stages.influence.probe import Prober
from stages.influence.scores import paired_score

# Row lengths of the other packs, as shares of pack_tokens: matrices of other shapes are summed in another order.
_LENGTHS = (0.83, 0.61, 1.27, 0.45, 1.71)


def exact_noise(prober: Prober, examples: Sequence[Example], *, draws: int = 3) -> float:
    """σ of exact scores, pooled over `examples`: (draws − 1) · len(examples) degrees of freedom.

    Costs `draws` reference passes and backwards an example, and `draws` passes for the base.
    """
    sizes = [int(_LENGTHS[draw % len(_LENGTHS)] * prober.options.pack_tokens) for draw in range(draws)]
    batches = [prober.loss.batches(prober.reference, shuffle=draw, tokens=size) for draw, size in enumerate(sizes)]
    before = [prober.base_losses(batches[draw], Dither(draw, "before")) for draw in range(draws)]
    variances = []
    for example in examples:
        scores = []
        for draw in range(draws):
            weights, _ = prober.step(example, Dither(draw, "after"))
            after = prober.reference_losses(weights, batches[draw])
            scores.append(paired_score(before[draw], after, prober.reference_tokens, prober.options.reduction)[0])
        variances.append(np.var(scores, ddof=1))
    return float(np.sqrt(np.mean(variances)))


def first_order_noise(prober: Prober, examples: Sequence[Example]) -> float:
    """σ of first-order scores, pooled over `examples`: against a second rounding of every gradient.

    Costs one more reference gradient (three passes; two models in memory while it lasts) and two backwards an
    example.
    """
    size = int(_LENGTHS[1] * prober.options.pack_tokens)
    usual = [prober.first_order(example).score for example in examples]
    second = prober.take_reference_gradient(0, tokens=size, dither=Dither(0, "after"))
    start = {name: weight.clone() for name, weight in prober.state.weights.items()}
    for name, weight in start.items():
        Dither(0, "before").apply(weight, weight.dtype, name)
    with weights_in_place(prober.loss.model, start):
        otherwise = [prober.first_order_along(second, example).score for example in examples]
    # The difference of two independent errors has twice the variance of one.
    return float(np.sqrt(np.mean(np.square(np.subtract(usual, otherwise))) / 2))
