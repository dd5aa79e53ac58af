"""Known components must come back, intervals must cover them, and what cannot be known must be None."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from stages.aggregate.variance import Aggregate, Reliability, _estimates, aggregate_scores


@dataclass(frozen=True)
class Design:
    """Sizes and true variances of a simulation; `kept`: share of the responses that survive, at random."""

    prompts: int
    instructions: int
    responses: int
    prompt: float
    instruction: float
    response: float
    kept: float = 1.0


# The share between prompts and the correlation of two responses as measured on real runs (0.0-0.12, 0.16 and
# 0.41).
DESIGNS = {
    "balanced": Design(400, 4, 4, prompt=0.5, instruction=1.0, response=2.0),
    "unbalanced": Design(400, 4, 4, prompt=0.5, instruction=1.0, response=2.0, kept=0.6),
    "mostly response": Design(600, 4, 4, prompt=0.05, instruction=0.11, response=0.84, kept=0.8),
    "mostly prompt": Design(800, 3, 2, prompt=5.0, instruction=0.5, response=1.0, kept=0.8),
    "no prompt effect": Design(400, 4, 4, prompt=0.0, instruction=0.4, response=0.6, kept=0.8),
}


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS.keys())
def test_known_components_come_back(design: Design) -> None:
    found = _aggregate(*_simulate(design, np.random.default_rng(1)))
    for component, truth in zip(found.components, _truth(design), strict=True):
        assert component.variance is not None and component.low is not None and component.high is not None
        # Four standard errors by the module's own interval, which the coverage test below checks by itself;
        # and that interval must be narrow enough for the comparison to say something.
        reach = (component.high - component.low) / 2
        assert abs(component.variance - truth) < 2 * reach
        assert reach < 0.2 * sum(_truth(design))
    shares = np.array([component.share for component in found.components])
    assert shares == pytest.approx(np.array(_truth(design)) / sum(_truth(design)), abs=0.06)


# Responses of every instruction of every prompt.
UNBALANCED = {
    "two prompts": [[1, 2], [3, 1, 1]],
    "very unequal": [[1, 9, 2], [1], [4, 4, 1, 1, 1], [2, 7]],
    "one response each": [[1, 1, 1], [1], [1, 1]],
}


@pytest.mark.parametrize("sizes", UNBALANCED.values(), ids=UNBALANCED.keys())
def test_the_estimators_are_exactly_unbiased(sizes: list[list[int]]) -> None:
    """An estimate is a quadratic form Q(y): with covariance Z·Zᵀ its expectation is the sum of Q over Z's columns."""
    prompt_I = np.array([prompt for prompt, responses in enumerate(sizes) for _ in responses])
    instruction_R = np.repeat(np.arange(prompt_I.size), [n for responses in sizes for n in responses])
    groupings = {
        "prompt": prompt_I[instruction_R],
        "instruction": instruction_R,
        "response": np.arange(instruction_R.size),
    }
    for column, group_R in enumerate(groupings.values()):
        indicators = [(group_R == group).astype(float) for group in np.unique(group_R)]
        expected = np.sum([_estimates(y_R, instruction_R, prompt_I)[0] for y_R in indicators], axis=0)
        identity = np.eye(3)[column]
        if instruction_R.size == prompt_I.size:
            identity[1:] = np.nan
        assert expected == pytest.approx(identity, abs=1e-9, nan_ok=True)


def test_leaving_a_prompt_out_by_subtraction_is_leaving_it_out() -> None:
    prompt_I = np.array([0, 0, 1, 1, 1, 2, 2])
    instruction_R = np.repeat(np.arange(7), [2, 1, 3, 2, 1, 4, 2])
    y_R = np.random.default_rng(9).normal(size=instruction_R.size)
    kept_R = prompt_I[instruction_R] != 0
    without = _estimates(y_R[kept_R], instruction_R[kept_R] - 2, prompt_I[2:] - 1)
    assert _estimates(y_R, instruction_R, prompt_I)[1] == pytest.approx(without[0])


USUAL = Design(40, 4, 4, prompt=0.5, instruction=0.5, response=2.0, kept=0.8)
# As real runs were: few prompts, two responses, and a reliability of 0.1, whose components are often cut at 0.
WEAK = Design(20, 4, 2, prompt=0.05, instruction=0.1, response=0.9)


@pytest.mark.parametrize(
    ("design", "level"),
    [(replace(USUAL, prompts=15), 0.9), (USUAL, 0.9), (USUAL, 0.95), (WEAK, 0.95)],
    ids=["few prompts", "usual", "usual, wider", "weak"],
)
def test_intervals_cover_the_truth(design: Design, level: float) -> None:
    p, i, r = _truth(design)
    generator = np.random.default_rng(3)
    covered = np.zeros((500, 5), bool)
    for row in range(len(covered)):
        found = _aggregate(*_simulate(design, generator), level=level)
        intervals = [(one.low, one.high) for one in found.components]
        intervals += [(one.low, one.high) for one in (found.reliability, found.within_prompt_reliability)]
        for column, truth in enumerate((p, i, r, (p + i) / (p + i + r), i / (i + r))):
            low, high = intervals[column]
            assert low is not None and high is not None and low < high
            covered[row, column] = low <= truth <= high
    # A jackknife of a skewed estimator falls short by some points; 500 trials have a standard error of 1.3 points.
    assert (covered.mean(0) > level - 0.08).all(), covered.mean(0)
    assert (covered.mean(0) < level + 0.06).all(), covered.mean(0)


def test_means_and_their_standard_errors_match_what_repeating_shows() -> None:
    design = Design(300, 4, 4, prompt=0.5, instruction=1.0, response=2.0)
    generator = np.random.default_rng(4)
    prompt_ids, instruction_ids, scores = _simulate(design, generator)
    again = np.array(scores) + 0.0
    truth = {mean.instruction_id: mean.score for mean in _aggregate(prompt_ids, instruction_ids, scores).means}
    noisy = aggregate_scores(prompt_ids, instruction_ids, list(again + generator.normal(0, 3.0, again.size)))
    errors = [(mean.score - truth[mean.instruction_id]) for mean in noisy.means]
    stderr = noisy.means[0].stderr
    assert stderr is not None
    assert stderr == pytest.approx(np.sqrt((2.0 + 9.0) / 4), rel=0.05)
    assert np.std(errors) == pytest.approx(np.sqrt(9.0 / 4), rel=0.1)


def test_a_small_example_by_hand() -> None:
    found = aggregate_scores(
        ["p", "p", "p", "p", "q", "q", "q", "q"],
        ["a", "a", "b", "b", "c", "c", "d", "d"],
        [1.0, 3.0, 5.0, 7.0, 10.0, 12.0, 14.0, 16.0],
        [0.5] * 8,
    )
    # Mean squares: within 2 (4 df), between instructions 16 (2 df), between prompts 162 (1 df); k1 = k2 = 2,
    # k3 = 4.
    assert found.response.variance == pytest.approx(2)
    assert found.instruction.variance == pytest.approx((16 - 2) / 2)
    assert found.prompt.variance == pytest.approx((162 - 16) / 4)
    assert [mean.score for mean in found.means] == [2, 6, 11, 15]
    assert [mean.stderr for mean in found.means] == pytest.approx([1.0] * 4)
    assert [mean.noise for mean in found.means] == pytest.approx([0.5 * np.sqrt(3 / 4)] * 4)
    assert found.noise_variance == pytest.approx(0.25)
    assert found.reliability.one_response == pytest.approx(43.5 / 45.5)
    assert found.within_prompt_reliability.one_response == pytest.approx(7 / 9)
    assert found.responses == 2


def test_shifting_and_scaling_scores_shifts_and_scales_the_result() -> None:
    prompt_ids, instruction_ids, scores = _simulate(Design(20, 3, 3, 1, 1, 1), np.random.default_rng(5))
    plain = _aggregate(prompt_ids, instruction_ids, scores)
    moved = _aggregate(prompt_ids, instruction_ids, [1e-3 + 1e-4 * score for score in scores])
    for one, other in zip(plain.components, moved.components, strict=True):
        assert one.variance is not None and one.high is not None
        assert other.variance == pytest.approx(1e-8 * one.variance, rel=1e-6)
        assert other.high == pytest.approx(1e-8 * one.high, rel=1e-6)
        assert other.share == pytest.approx(one.share)


RELIABILITY = [(0.13, 4, 0.37), (0.13, 8, 0.54), (0.44, 4, 0.76), (0.5, 1, 0.5), (0.0, 8, 0.0), (1.0, 3, 1.0)]


@pytest.mark.parametrize(("single", "responses", "expected"), RELIABILITY)
def test_more_responses_make_a_mean_more_reliable(single: float, responses: int, expected: float) -> None:
    assert Reliability(single, None, None).of_mean(responses) == pytest.approx(expected, abs=0.006)


def test_pairs_rest_on_the_within_prompt_reliability_which_prompt_variance_does_not_raise() -> None:
    found = _aggregate(*_simulate(DESIGNS["mostly prompt"], np.random.default_rng(6)))
    assert found.reliability.one_response == pytest.approx(5.5 / 6.5, abs=0.05)
    assert found.within_prompt_reliability.one_response == pytest.approx(0.5 / 1.5, abs=0.05)


def test_a_negative_estimate_is_set_to_zero_and_says_so() -> None:
    # Responses differ within instructions, the instructions' means are equal: less than sampling alone would give.
    found = aggregate_scores(list("ppppqqqq"), list("aabbccdd"), [-1.0, 1.0] * 4)
    assert found.instruction.variance == 0 and found.instruction.truncated
    assert found.prompt.variance == 0
    assert found.response.variance == pytest.approx(2) and not found.response.truncated
    assert found.response.share == 1
    assert found.reliability.one_response == 0


def test_prompts_that_are_all_alike_say_nothing_of_the_interval() -> None:
    found = aggregate_scores(list("ppppqqqq"), list("aabbccdd"), [-1.0, 1.0] * 4).within_prompt_reliability
    assert (found.one_response, found.low, found.high) == (0, None, None)


def test_with_one_response_each_only_the_prompt_component_is_known() -> None:
    generator = np.random.default_rng(7)
    found = _aggregate(*_simulate(Design(500, 4, 1, prompt=2.0, instruction=1.0, response=3.0), generator))
    assert found.prompt.variance == pytest.approx(2.0, abs=0.7)
    for unknown in (found.instruction, found.response):
        assert (unknown.variance, unknown.low, unknown.high, unknown.share) == (None, None, None, None)
        assert not unknown.truncated
    assert found.prompt.share is None
    assert found.within_prompt_reliability.unknown == "no instruction has two scored responses"
    assert all(mean.stderr is None for mean in found.means)
    assert found.reliability.of_mean(4) is None and found.within_prompt_reliability.of_mean(4) is None


def test_with_one_prompt_the_prompt_component_is_unknown_and_pairs_still_have_a_reliability() -> None:
    found = _aggregate(
        *_simulate(Design(1, 200, 4, prompt=9.0, instruction=1.0, response=3.0), np.random.default_rng(8))
    )
    assert found.prompt.variance is None and found.reliability.one_response is None
    assert found.reliability.unknown == "all instructions are of one prompt"
    assert found.within_prompt_reliability.unknown is None
    assert found.instruction.variance == pytest.approx(1.0, abs=0.5)
    assert found.within_prompt_reliability.one_response == pytest.approx(0.25, abs=0.1)
    assert found.instruction.low is None, "a jackknife over one prompt is no interval"


def test_with_one_instruction_a_prompt_only_the_response_component_is_known() -> None:
    found = aggregate_scores(list("ppqqrr"), list("aabbcc"), [1.0, 2.0, 5.0, 7.0, 3.0, 3.0])
    assert found.response.variance == pytest.approx((0.5 + 2 + 0) / 3)
    assert found.instruction.variance is None and found.prompt.variance is None
    assert found.within_prompt_reliability.unknown == "no prompt has two scored instructions"
    assert found.means[0].stderr == pytest.approx(np.sqrt(2.5 / 3 / 2))


def test_constant_scores_vary_in_nothing() -> None:
    found = aggregate_scores(list("ppppqqqqrrrr"), list("aabbccddeeff"), [0.1] * 12, [1e-3] * 12)
    for component in found.components:
        assert (component.variance, component.low, component.high) == (0, 0, 0)
        assert component.share is None
    assert found.reliability.one_response is None, "0 of 0 is not a reliability"
    assert found.reliability.unknown == "all scores are equal"
    assert found.means[0].stderr == pytest.approx(1e-3 * np.sqrt(3 / 4)), "numerical noise is the least error"


def test_scores_that_are_not_numbers_are_dropped_and_counted() -> None:
    nan, infinite = float("nan"), float("inf")
    found = aggregate_scores(list("pppppp"), list("aabbcc"), [1.0, nan, 2.0, 4.0, None, infinite])
    assert found.dropped == 3 and found.unscored == 1
    assert [(mean.instruction_id, mean.n, mean.score) for mean in found.means] == [
        ("a", 1, 1.0),
        ("b", 2, 3.0),
    ]
    assert found.responses == pytest.approx(2 / (1 + 1 / 2))


@pytest.mark.parametrize("responses", [1, 2, 8])
def test_the_noise_of_a_mean_holds_the_rounding_that_its_scores_share(responses: int) -> None:
    dice, sigma, runs = np.random.default_rng(9), 0.3, 4000
    # Rounding of a base that was computed once, and of what each response leads to.
    base, after = dice.normal(0, sigma, (2, runs, responses)) / np.sqrt(2)
    means = (base[:, :1] - after).mean(axis=1)
    ids = ["p"] * responses, ["a"] * responses
    found = aggregate_scores(*ids, [1.0] * responses, [sigma] * responses).means[0]
    assert found.noise == pytest.approx(np.std(means), rel=0.04)


def test_a_missing_noise_counts_as_zero_and_no_noise_at_all_as_unknown() -> None:
    ids = list("pppp"), list("aabb")
    some = aggregate_scores(*ids, [1.0, 2.0, 3.0, 4.0], [0.2, None, None, None])
    assert [mean.noise for mean in some.means] == pytest.approx([0.2 * np.sqrt(3 / 8), 0.0])
    none = aggregate_scores(*ids, [1.0, 2.0, 3.0, 4.0], [None] * 4)
    assert none.noise_variance is None and none.means[0].noise is None


REFUSED = {
    "lengths differ": ((["p"], ["a", "b"], [1.0, 2.0]), "of one length"),
    "no score": ((["p"], ["a"], [None]), "none of the 1 scores"),
    "nothing at all": (([], [], []), "none of the 0 scores"),
    "two prompts": ((["p", "q"], ["a", "a"], [1.0, 2.0]), "instruction a has two prompts: p and q"),
}


@pytest.mark.parametrize(("columns", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_refused(columns: tuple[list[str], list[str], list[float | None]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate_scores(*columns)


def _truth(design: Design) -> tuple[float, float, float]:
    return design.prompt, design.instruction, design.response


def _simulate(design: Design, generator: np.random.Generator) -> tuple[list[str], list[str], list[float]]:
    shape = (design.prompts, design.instructions, design.responses)

    def effect(variance: float, *size: int) -> npt.NDArray[np.float64]:
        return generator.normal(0, np.sqrt(variance), size).reshape(size + (1,) * (3 - len(size)))

    scores = (
        effect(design.prompt, *shape[:1]) + effect(design.instruction, *shape[:2]) + effect(design.response, *shape)
    )
    kept = generator.random(shape) < design.kept
    prompt, instruction, _ = np.nonzero(kept)
    prompt_ids = [f"p{p}" for p in prompt]
    instruction_ids = [f"p{p}i{i}" for p, i in zip(prompt, instruction, strict=True)]
    return prompt_ids, instruction_ids, [float(score) for score in scores[kept]]


def _aggregate(
    prompt_ids: list[str], instruction_ids: list[str], scores: list[float], level: float = 0.95
) -> Aggregate:
    return aggregate_scores(prompt_ids, instruction_ids, scores, level=level)
