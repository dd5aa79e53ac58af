"""Where the variance of influence scores comes from, and how reliable an instruction's mean score is.

Scores are nested, prompt p → instruction i → sampled response r, and modelled by random effects: y_pir = μ +
prompt_p + instruction_pi + response_pir. The teacher is trained on instructions while a score is measured on
one response, so the response component is noise as far as preference pairs are concerned.

Components come from the unbalanced nested analysis of variance (Searle, Casella and McCulloch, Variance
Components, 1992, chapter 3): mean squares equated to their expectations, which needs no normality. One that
comes out negative is set to 0 and says so (`truncated`); the others are computed from its untruncated value,
as they are unbiased only together. Not identifiable is None, never 0: the response component needs an
instruction with two scores, the instruction component that and a prompt with two instructions, the prompt
component two prompts.

Intervals are Student's t with P-1 degrees of freedom around a jackknife that leaves out one of the P prompts
at a time, of the untruncated estimate, cut at 0 afterwards: no assumption about the distribution within a prompt,
and no random numbers. Against the percentile, basic and BCa bootstrap over prompts it covered best, or nearly, at
12 to 80 prompts. What it does NOT guarantee: with very skewed prompt means (log-normal) a 90 % interval of the
prompt component covered 73 to 85 %; the other two stayed above 82 %.

The response component includes the noise of a score, but for what all scores share of it; its expected variance, at
most, is reported beside it.
The error that comes from the choice of reference rows is not in here: all candidates share those rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

# Suffixes: R scores, I instructions, P prompts, J sets of prompts (all of them, or all but one).
_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_NAMES = ("prompt", "instruction", "response")  # columns of [J, 3]
# Without these a component is not identifiable.
_LACKING = {
    "response": "no instruction has two scored responses",
    "instruction": "no prompt has two scored instructions",
    "prompt": "all instructions are of one prompt",
}


@dataclass(frozen=True)
class InstructionMean:
    """Mean score of one instruction over its n scored responses.

    `stderr` includes response sampling: the response component, pooled over all instructions, over n, or the
    noise alone where that is larger; None if no instruction has two scores. `noise` is how far off the mean
    may be (σ); None if the scores came without.
    """

    instruction_id: str
    prompt_id: str
    n: int
    score: float
    stderr: float | None
    noise: float | None


@dataclass(frozen=True)
class Component:
    """One variance component (score units squared), its interval and its share of the three's sum."""

    name: str
    variance: float | None
    low: float | None
    high: float | None
    share: float | None
    truncated: bool


@dataclass(frozen=True)
class Reliability:
    """Share of the variance of single scores that is not response sampling, 0 to 1, with its interval.

    All None if not identifiable, or if nothing varies; `unknown` says why.
    """

    one_response: float | None
    low: float | None
    high: float | None
    unknown: str | None = None

    def of_mean(self, responses: float) -> float | None:
        """Reliability of a mean over k responses, k·r/(1+(k-1)·r) (Spearman 1910, Brown 1910)."""
        if self.one_response is None:
            return None
        return responses * self.one_response / (1 + (responses - 1) * self.one_response)


@dataclass(frozen=True)
class Aggregate:
    """Instruction means, in order of first appearance, and what is known of their reliability.

    `reliability` compares any two instructions (prompt and instruction variance are signal);
    `within_prompt_reliability` compares instructions of one prompt, as preference pairs do, so that only
    instruction variance is signal and prompt variance is absent. `responses` is the harmonic mean of the
    instructions' n: the k to give to `Reliability.of_mean`. `noise_variance` is the mean σ² of the
    scores. `dropped` counts scores that are missing or not finite, `unscored` the instructions that have no
    other.
    """

    means: list[InstructionMean]
    prompt: Component
    instruction: Component
    response: Component
    reliability: Reliability
    within_prompt_reliability: Reliability
    responses: float
    noise_variance: float | None
    dropped: int
    unscored: int

    @property
    def components(self) -> tuple[Component, Component, Component]:
        """Prompt, instruction, response."""
        return self.prompt, self.instruction, self.response


def aggregate_scores(
    prompt_ids: Sequence[str],
    instruction_ids: Sequence[str],
    scores: Sequence[float | None],
    noises: Sequence[float | None] | None = None,
    *,
    level: float = 0.95,
) -> Aggregate:
    """Means, variance components and reliabilities of scores[R] given their prompt and instruction.

    `noises`: how far off every score may be (σ), in score units; a missing one counts as 0, all missing as
    unknown. `level`: of the intervals. ValueError if the lengths differ, no score is finite, or one
    instruction has two prompts.
    """
    if not len(prompt_ids) == len(instruction_ids) == len(scores) or (noises and len(noises) != len(scores)):
        raise ValueError("prompt ids, instruction ids, scores and noises must be of one length")
    y_R = _as_floats(scores)
    noise_R = _as_floats(noises) if noises else np.full(len(scores), np.nan)
    used = np.isfinite(y_R)
    if not used.any():
        raise ValueError(f"none of the {len(scores)} scores is a finite number")
    y_R, noise_R = y_R[used], noise_R[used]
    prompt_of = _prompt_of_each(prompt_ids, instruction_ids)
    kept_ids = [instruction_id for instruction_id, use in zip(instruction_ids, used, strict=True) if use]
    ids_I = list(dict.fromkeys(kept_ids))
    row_of = {instruction_id: row for row, instruction_id in enumerate(ids_I)}
    instruction_R = np.array([row_of[instruction_id] for instruction_id in kept_ids], np.int64)
    prompts_I = [prompt_of[instruction_id] for instruction_id in ids_I]
    _, prompt_I = np.unique(np.array(prompts_I, dtype=object), return_inverse=True)

    n_I = np.bincount(instruction_R)
    mean_I = _sums_by(instruction_R, y_R) / n_I
    # Constant scores give sums of squares of exactly 0 this way; a mean would leave rounding behind.
    estimates = _estimates(y_R - np.median(y_R), instruction_R, prompt_I)
    noise_known = bool(np.isfinite(noise_R).any())
    squared_noise_R = np.nan_to_num(noise_R) ** 2
    squared_noise_I = _sums_by(instruction_R, squared_noise_R) / n_I
    response_variance = estimates[0, 2]
    # Not /n: a score is base − after, and the base's rounding, half of the variance, is the same in every score. What
    # first order misses is taken as shared in the same way, since responses to one instruction are alike.
    noise_I = np.sqrt(squared_noise_I * (1 + 1 / n_I) / 2)
    stderr_I = np.maximum(np.sqrt(response_variance / n_I), noise_I)  # NaN stays NaN
    means = [
        InstructionMean(
            instruction_id=ids_I[row],
            prompt_id=prompts_I[row],
            n=int(n_I[row]),
            score=float(mean_I[row]),
            stderr=_or_none(stderr_I[row]),
            noise=float(noise_I[row]) if noise_known else None,
        )
        for row in range(len(ids_I))
    ]
    prompt, instruction, response = _components(estimates, level)
    return Aggregate(
        means=means,
        prompt=prompt,
        instruction=instruction,
        response=response,
        reliability=_reliability(estimates, ("prompt", "instruction"), level),
        within_prompt_reliability=_reliability(estimates, ("instruction",), level),
        responses=float(len(n_I) / np.sum(1 / n_I)),
        noise_variance=float(squared_noise_R.mean()) if noise_known else None,
        dropped=int((~used).sum()),
        unscored=len(prompt_of) - len(ids_I),
    )


def _as_floats(values: Sequence[float | None]) -> _Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _prompt_of_each(prompt_ids: Sequence[str], instruction_ids: Sequence[str]) -> dict[str, str]:
    prompt_of: dict[str, str] = {}
    for prompt_id, instruction_id in zip(prompt_ids, instruction_ids, strict=True):
        if prompt_of.setdefault(instruction_id, prompt_id) != prompt_id:
            first = prompt_of[instruction_id]
            raise ValueError(f"instruction {instruction_id} has two prompts: {first} and {prompt_id}")
    return prompt_of


def _estimates(y_R: _Floats, instruction_R: _Ints, prompt_I: _Ints) -> _Floats:
    """Untruncated components [J, 3] (prompt, instruction, response) of all prompts, then without each of
    them.

    NaN where not identifiable. Every sum of squares is a sum over prompts but the prompts' own, which needs
    Σy as well, so that leaving one out is a subtraction.
    """
    n_I = np.bincount(instruction_R).astype(np.float64)
    mean_I = _sums_by(instruction_R, y_R) / n_I
    within_I = _sums_by(instruction_R, (y_R - mean_I[instruction_R]) ** 2)
    n_P = _sums_by(prompt_I, n_I)
    sum_P = _sums_by(prompt_I, n_I * mean_I)
    mean_P = sum_P / n_P
    squares_P = _sums_by(prompt_I, n_I**2)
    terms = _Sums(
        scores=n_P,
        instructions=np.bincount(prompt_I).astype(np.float64),
        prompts=np.ones_like(n_P),
        sum=sum_P,
        squared_sum_over_n=sum_P**2 / n_P,
        between=_sums_by(prompt_I, n_I * (mean_I - mean_P[prompt_I]) ** 2),
        within=_sums_by(prompt_I, within_I),
        squares=squares_P,
        squares_over_n=squares_P / n_P,
        squared_scores=n_P**2,
    )
    with_all_then_without_each = [np.concatenate(([term.sum()], term.sum() - term)) for term in terms]
    return _solve(_Sums(*with_all_then_without_each))


def _sums_by(group: _Ints, values: _Floats) -> _Floats:
    return np.bincount(group, values).astype(np.float64)


class _Sums(NamedTuple):
    """What the analysis of variance needs, summed over prompts; n is a number of scores."""

    scores: _Floats
    instructions: _Floats
    prompts: _Floats
    sum: _Floats  # Σ y
    squared_sum_over_n: _Floats  # Σ_p (Σ y)² / n_p
    between: _Floats  # Σ_pi n_pi (mean_pi - mean_p)²
    within: _Floats  # Σ_pir (y_pir - mean_pi)²
    squares: _Floats  # Σ_pi n_pi²
    squares_over_n: _Floats  # Σ_p Σ_i n_pi² / n_p
    squared_scores: _Floats  # Σ_p n_p²


def _solve(s: _Sums) -> _Floats:
    """Components [J, 3] from sums [J]: the three mean squares equated to their expectations.

    E[within] = response, E[between] = response + k1·instruction, E[prompts] = response + k2·instruction +
    k3·prompt.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        response = _ratio(s.within, s.scores - s.instructions)
        instructions_square = _ratio(s.between, s.instructions - s.prompts)
        k1 = _ratio(s.scores - s.squares_over_n, s.instructions - s.prompts)
        instruction = (instructions_square - response) / k1
        prompts_square = _ratio(s.squared_sum_over_n - s.sum**2 / s.scores, s.prompts - 1)
        k2 = _ratio(s.squares_over_n - s.squares / s.scores, s.prompts - 1)
        k3 = _ratio(s.scores - s.squared_scores / s.scores, s.prompts - 1)
        # With one response each k1 = k2 = 1: response and instruction are known only as a sum, which drops out.
        single = s.scores == s.instructions
        below = np.where(single, instructions_square, response + k2 * instruction)
        return np.stack([(prompts_square - below) / k3, instruction, response], axis=-1)


def _ratio(above: _Floats, below: _Floats) -> _Floats:
    """above / below, NaN where below is not positive: no degrees of freedom."""
    return np.where(below > 0.5, above / below, np.nan)


def _components(estimates_J3: _Floats, level: float) -> tuple[Component, Component, Component]:
    cut = np.maximum(estimates_J3[0], 0)
    total = float(cut.sum())  # NaN if a component is unknown
    made = []
    for column, name in enumerate(_NAMES):
        variance = _or_none(cut[column])
        low, high = _interval(estimates_J3[:, column], cut[column], level)
        made.append(
            Component(
                name=name,
                variance=variance,
                low=low,
                high=high,
                share=variance / total if variance is not None and total > 0 else None,
                truncated=bool(estimates_J3[0, column] < 0),
            )
        )
    return made[0], made[1], made[2]


def _reliability(estimates_J3: _Floats, signal: Sequence[str], level: float) -> Reliability:
    """Of scores whose `signal` components are wanted and whose response component is not."""
    columns = [_NAMES.index(name) for name in signal]

    def share(components_J3: _Floats) -> _Floats:
        signal_J, response_J = components_J3[:, columns].sum(1), components_J3[:, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(signal_J / (signal_J + response_J))

    one_response = share(np.maximum(estimates_J3[:1], 0))[0]  # NaN stays NaN
    # Components cut at 0 would vary less between the jackknife's turns than the estimate does.
    low, high = _interval(share(estimates_J3), one_response, level)
    if low is not None and high is not None and high - low < 1e-9:
        # Prompts that are all alike: that says nothing of how others would differ.
        low = high = None
    return Reliability(
        one_response=_or_none(one_response),
        low=None if low is None else min(low, 1.0),
        high=None if high is None else min(high, 1.0),
        unknown=None if np.isfinite(one_response) else _unknown(estimates_J3[0], signal),
    )


def _unknown(estimates_3: _Floats, signal: Sequence[str]) -> str:
    """What the scores lack; a component is known only where those behind it are."""
    for name in ("response", "instruction", "prompt"):
        if name in (*signal, "response") and not np.isfinite(estimates_3[_NAMES.index(name)]):
            return _LACKING[name]
    return "all scores are equal"


def _interval(values_J: _Floats, cut: float, level: float) -> tuple[float | None, float | None]:
    """Jackknife interval, nowhere below 0, of values[0], which is reported as `cut`; the other values lack one
    prompt each. None if one of them is unknown.

    The upper end is counted from what is reported where that is larger: an interval that ended below 0 would be cut to
    a point.
    """
    value, without = values_J[0], values_J[1:]
    prompts = len(without)
    if prompts < 2 or not np.isfinite(values_J).all():
        return None, None
    stderr = np.sqrt((prompts - 1) / prompts * np.sum((without - without.mean()) ** 2))
    reach = student_t.ppf((1 + level) / 2, prompts - 1) * stderr
    return max(float(value - reach), 0.0), float(max(value, cut) + reach)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
