"""Steps and passes asked for again by what was captured of them: here a graph that does the work itself, on a CPU.

What is tested is everything but the capture: that candidates padded to a common length score as they are, and that
nothing is asked for again at other weights.
"""

from __future__ import annotations

from typing import Any

import pytest

from stages.influence import graphs
from stages.influence.dither import Dither
from stages.influence.graphs import Graphs, Work
from stages.influence.noise import exact_noise, first_order_noise
from stages.influence.probe import Prober
from tests.influence.builders import prober


class Replayed:
    """In place of a CUDA graph: the same work on the same arguments into the same results."""

    def __init__(self, given: tuple[Any, ...], work: Work) -> None:
        self.given, self.work, self.results, self.replays = given, work, work(*given), 0

    def replay(self) -> None:
        self.replays += 1
        for into, value in zip(self.results, self.work(*self.given), strict=True):
            into.copy_(value)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    found: list[Replayed] = []

    def capture(self: Graphs, given: tuple[Any, ...], work: Work) -> Any:
        found.append(Replayed(given, work))
        return graphs._Captured(found[-1], given, found[-1].results, work)

    monkeypatch.setattr(Graphs, "_capture", capture)
    monkeypatch.setattr(graphs, "ROUND", 16)
    return found


def graphed(state, reference, **options) -> Prober:
    probe = prober(state, reference, **options)
    probe._graphs.on = True
    return probe


@pytest.mark.parametrize("attention", ["segments", "padded"])
def test_scores_are_those_of_unpadded_candidates(captured, state, reference, candidates, attention) -> None:
    plain = prober(state, reference, attention=attention, cuda_graphs=False)
    ours = graphed(state, reference, attention=attention)
    for candidate in candidates:
        exact, other = ours.exact(candidate), plain.exact(candidate)
        assert exact.score == pytest.approx(other.score, rel=1e-4, abs=1e-7)
        assert exact.loss == pytest.approx(other.loss, rel=1e-5)
        first, second = ours.first_order(candidate), plain.first_order(candidate)
        assert first.score == pytest.approx(second.score, rel=1e-4)
        assert first.stderr == pytest.approx(second.stderr, rel=1e-3)
        corrected = ours.corrected(candidate, first)
        assert corrected.score == pytest.approx(plain.corrected(candidate, second).score, rel=1e-4, abs=1e-7)
    sizes = {tuple(-(-size // 16) for size in (len(each.ids) - 1, each.tokens)) for each in candidates}
    # a step and a first order of each size, and two passes; what was captured before the gradient was taken is gone
    assert len(captured) <= 2 * len(sizes) + 2 + 2
    assert sum(each.replays for each in captured) > len(captured)


def test_nothing_captured_is_asked_for_at_other_weights(captured, state, reference, candidates) -> None:
    found = []
    for probe in (graphed(state, reference), prober(state, reference, cuda_graphs=False)):
        probe.loss.apart = None  # a graph takes one at a time, and is compared with the same
        usual = probe.first_order(candidates[0]).score
        asked = len(captured), sum(each.replays for each in captured)
        with probe.at(probe.dithered(Dither(0, "gradient"))):  # as noise.py does
            elsewhere = [result.score for result in probe.first_orders(candidates[:2])]
            probe.step(candidates[0])
        assert (len(captured), sum(each.replays for each in captured)) == asked
        first_order_noise(probe, candidates[:2])
        sigma = exact_noise(probe, candidates[:2], draws=2)["exact"]
        assert probe.first_order(candidates[0]).score == usual
        found.append((usual, elsewhere, sigma))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)  # no graph has padded these
    assert found[0][2] == pytest.approx(found[1][2], rel=0.1)  # σ is itself of roundings


def test_a_gradient_taken_anew_leaves_nothing_captured(captured, state, reference, candidates) -> None:
    probe = graphed(state, reference)
    probe.exact(candidates[0])
    before = len(captured)
    probe.linearise(2)
    probe.exact(candidates[0])
    assert len(captured) == 2 * before


def test_without_a_gpu_nothing_is_padded(monkeypatch, state, reference, candidates) -> None:
    monkeypatch.setattr(graphs, "padded_to", None)
    probe = prober(state, reference)
    probe.exact(candidates[0]), probe.first_order(candidates[0])


def test_a_model_that_cannot_be_captured_goes_on_without(monkeypatch, state, reference, candidates) -> None:
    monkeypatch.setattr(Graphs, "_capture", lambda self, given, work: None)
    probe, plain = graphed(state, reference), prober(state, reference, cuda_graphs=False)
    assert probe.exact(candidates[0]).score == plain.exact(candidates[0]).score
