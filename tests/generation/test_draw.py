"""The small sampling loop's arithmetic."""

from collections import Counter

import pytest
import torch

from stages.generation.engines.transformers import draw, penalised
from stages.generation.settings import SamplingSettings

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])  # probabilities 0.64, 0.24, 0.09, 0.03


def drawn(sampling: SamplingSettings, times: int = 4000) -> Counter[int]:
    generator = torch.Generator().manual_seed(1)
    return Counter(draw(LOGITS, sampling, generator) for _ in range(times))


def test_draws_follow_the_distribution() -> None:
    found = drawn(SamplingSettings(top_p=1))
    for token, probability in enumerate(torch.softmax(LOGITS, -1).tolist()):
        assert found[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_temperature_zero_is_greedy() -> None:
    assert drawn(SamplingSettings(temperature=0)) == {0: 4000}


def test_top_p_keeps_the_token_that_crosses_it() -> None:
    assert set(drawn(SamplingSettings(top_p=0.7))) == {0, 1}


def test_top_k_keeps_k_tokens() -> None:
    assert set(drawn(SamplingSettings(top_p=1, top_k=3))) == {0, 1, 2}


def test_repetition_counts_the_prompt_and_presence_only_the_output() -> None:
    sampling = SamplingSettings(repetition_penalty=2, presence_penalty=0.5)
    assert penalised(LOGITS, prompt=[0, 3], output=[1], sampling=sampling).tolist() == [1.0, 0.0, 0.0, -2.0]


def test_penalties_leave_the_given_logits_alone() -> None:
    penalised(LOGITS, [0], [1], SamplingSettings(presence_penalty=1))
    assert LOGITS.tolist() == [2.0, 1.0, 0.0, -1.0]
