"""The numerical noise floor σ of a score: how much rounding alone moves it.

The same step is taken and evaluated with the reference rows packed otherwise and every rounding drawn anew, that of
the candidate's gradient included (dither.py says why other packs alone are not enough); σ is the standard deviation of
the score. It knows nothing of sampling: that is the standard error's part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.influence.dither import Dither
from stages.influence.examples import Example
from stages.influence.packing import Batch
from stages.influence.probe import Prober
from stages.influence.scores import paired_score

# Row lengths of the other packs, as shares of pack_tokens: matrices of other shapes are summed in another order.
_LENGTHS = (0.83, 0.61, 1.27, 0.45, 1.71)
_SHOWN = 0.5  # of a gradient's error, by other last bits of the weights


def exact_noise(prober: Prober, examples: Sequence[Example], *, draws: int = 3) -> dict[str, float]:
    """σ of `exact` and, where groups are kept, of `corrected` (without its drift): pooled over n = len(examples).

    The base's rounding, half of the variance, is the same for all examples of a draw (measured: their noise correlates
    at 0.4 to 0.5), so that there are n(draws − 1)/(1 + (n − 1)/4) degrees of freedom: 7 for 4 draws of 4, 1.6 for 2 of
    2. Twice σ then covers 91 % of errors, and 79 %, by Student's t.

    Costs `draws` reference passes and backwards an example, `draws` passes for the base, and a model in memory.
    """
    batches = _packed_otherwise(prober, draws)
    before = [prober.base_losses(batches[draw], Dither(draw, "before", prober.spacing)) for draw in range(draws)]
    some = np.array(prober.corrected_rows, dtype=np.int64)
    tokens, reduction = prober.reference_tokens, prober.options.reduction
    variances: dict[str, list[float]] = {"exact": [], "corrected": []}
    for example in examples:
        whole, part = [], []
        for draw in range(draws):
            with prober.at(prober.dithered(Dither(draw, "gradient"))):
                weights, _ = prober.step(example, Dither(draw, "after", prober.spacing))
            after = prober.reference_losses(weights, batches[draw])
            whole.append(paired_score(before[draw], after, tokens, reduction)[0])
            part.append(paired_score(before[draw][some], after[some], tokens[some], reduction)[0] if len(some) else 0.0)
        variances["exact"].append(float(np.var(whole, ddof=1)))
        variances["corrected"].append(float(np.var(part, ddof=1)))
    sigma = {method: float(np.sqrt(np.mean(found))) for method, found in variances.items()}
    return sigma if len(some) else {"exact": sigma["exact"]}


def first_order_noise(prober: Prober, examples: Sequence[Example]) -> float:
    """σ of first-order scores without their drift, pooled over `examples`: against a second rounding of every gradient.

    Other last bits of the weights re-draw some of a gradient's roundings only: what they show is taken for half of it
    (measured against fp64 on 30 reference sets: 0.42, and 0.67 where sums added as much). The storing of a reference
    gradient in bf16 is re-drawn whole, and larger.

    Costs one more reference gradient (three passes; two models in memory while it lasts) and two backwards an
    example.
    """
    size = int(_LENGTHS[1] * prober.options.pack_tokens)
    usual = [result.score for result in prober.first_orders(examples)]
    dither = Dither(0, "gradient")
    second = prober.linearise(0, tokens=size, dither=dither)
    with prober.at(prober.dithered(dither)):
        otherwise = [result.score for result in prober.first_orders_along(second, examples)]
    # The difference of two independent errors has twice the variance of one.
    shown = float(np.sqrt(np.mean(np.square(np.subtract(usual, otherwise))) / 2))
    return shown if prober.options.gradient_dtype == "bfloat16" else shown / _SHOWN


def drift_noise(prober: Prober, *, draws: int = 3) -> float:
    """σ of L_R(base) − L_R(θ̄), which first order and `corrected` add to every score alike; 0 where θ̄ is the base.

    Costs two reference passes a draw.
    """
    if prober.options.baseline == "zero_gradient_step":
        return 0.0
    gains = []
    for draw, batches in enumerate(_packed_otherwise(prober, draws)):
        before = prober.base_losses(batches, Dither(draw, "before", prober.spacing))
        after = prober.drifted_losses(batches, Dither(draw, "after", prober.spacing))
        gains.append(paired_score(before, after, prober.reference_tokens, prober.options.reduction)[0])
    return float(np.std(gains, ddof=1))


def _packed_otherwise(prober: Prober, draws: int) -> list[list[Batch]]:
    sizes = [int(_LENGTHS[draw % len(_LENGTHS)] * prober.options.pack_tokens) for draw in range(draws)]
    return [prober.loss.batches(prober.reference, shuffle=draw, tokens=size) for draw, size in enumerate(sizes)]
