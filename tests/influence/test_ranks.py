"""Processes that share a student by ZeRO-3 find what one process finds, and say why they cannot go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.influence import ranked
from stages.influence.examples import Encoder, Example
from stages.influence.ranked import RankedScorer
from stages.influence.results import ProbeOptions
from stages.influence.scorer import LocalScorer, Scorer, Scoring
from stages.influence.state import read_tokenizer
from tests.influence.builders import examples, llama, warmed_up
from tests.influence.stages import (
    NO_GRADIENT,
    NO_LOSS,
    checkpoint,
    reference_examples,
    sick_checkpoint,
    stage_inputs,
)
from tests.support import run_stage

# Large enough a step that a score is far above rounding, so that 1e-5 of it can be asked for.
LR = 1e-2
CASES = {
    "2 ranks, tied head": (2, True, {}),
    "4 ranks, own head, layers computed again": (
        4,
        False,
        {"gradient_checkpointing": True, "baseline": "before_step", "gradient_dtype": "bfloat16"},
    ),
}


def scoring(folder: Path, *, tie: bool = True, **options: object) -> Scoring:
    model = llama(tie=tie)
    model.config.save_pretrained(folder)
    warmed_up(model).save(folder)
    chosen = {"lr": LR, "pack_tokens": 64, "gradient_groups": 4, **options}
    return Scoring(folder, examples(12, seed=1), ProbeOptions(**chosen), "cpu")  # type: ignore[arg-type]


def copies(given: Scoring, ranks: int) -> RankedScorer:
    """Ranks that are copies of a process which has imported torch and DeepSpeed: that takes each half a minute of
    processor time. The other tests start them as users do."""
    multiprocessing.set_forkserver_preload(["stages.influence.zero", "stages.influence.probe", "deepspeed"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked, "_START", "forkserver")
        return RankedScorer(given, ranks)


@pytest.fixture(scope="module", params=CASES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scorer, Scorer]]:
    ranks, tie, options = CASES[request.param]
    given = scoring(tmp_path_factory.mktemp("student"), tie=tie, **options)
    torch.set_num_threads(1)
    together = copies(given, ranks)
    yield LocalScorer(given), together
    together.close()


@pytest.fixture(scope="module")
def five() -> list[Example]:
    """Not a multiple of the ranks: some of them have nothing to do in the last round."""
    return examples(5, seed=2)


def test_every_method_gives_the_scores_of_one_process(both: tuple[Scorer, Scorer], five: list[Example]) -> None:
    alone, together = both
    assert together.base().nll == pytest.approx(alone.base().nll, rel=1e-7)
    assert together.base().corrected_rows == alone.base().corrected_rows
    first = alone.first_orders(five)
    for one, other in zip(first, together.first_orders(five), strict=True):
        assert other.score == pytest.approx(one.score, rel=1e-5)
        assert other.stderr == pytest.approx(one.stderr, rel=1e-4)
        assert other.loss == pytest.approx(one.loss, rel=1e-6)
    for example, found in zip(five[:1], first, strict=False):
        for one, other in (
            (alone.exact(example), together.exact(example)),
            (alone.corrected(example, found), together.corrected(example, found)),
        ):
            # A difference of two losses of about 4 in fp32: rounding alone is some 1e-8.
            assert other.score == pytest.approx(one.score, rel=1e-5, abs=5e-8)
            assert other.stderr == pytest.approx(one.stderr, rel=1e-3)
            assert other.nll == pytest.approx(one.nll, rel=1e-6, nan_ok=True)


def test_corrections_and_noise_are_those_of_one_process(both: tuple[Scorer, Scorer], five: list[Example]) -> None:
    alone, together = both
    first, exact = alone.first_orders(five[1:3]), [alone.exact(each) for each in five[1:3]]
    others, other_exact = together.first_orders(five[1:3]), [together.exact(each) for each in five[1:3]]
    for one, other in zip(zip(first, exact, strict=True), zip(others, other_exact, strict=True), strict=True):
        assert together.correct(*other) == pytest.approx(alone.correct(*one), rel=1e-3, abs=5e-8)
    ours, theirs = alone.noise(five[:2], 2), together.noise(five[:2], 2)
    assert theirs.keys() == ours.keys() == {"first_order", "exact", "corrected"}
    for method, sigma in theirs.items():
        assert 0 < sigma < 10 * ours[method] < 100 * sigma


def test_weights_that_were_exchanged_leave_nothing_behind(both: tuple[Scorer, Scorer], five: list[Example]) -> None:
    _, together = both
    before = together.first_orders(five[:1])[0]
    together.exact(five[1])
    assert together.first_orders(five[:1])[0].score == before.score


def test_a_candidate_without_a_score_harms_none_that_another_rank_takes(tmp_path: Path) -> None:
    folder = sick_checkpoint(tmp_path / "student")
    options = ProbeOptions(lr=LR, gradient_groups=4, corrected_groups=2)
    given = Scoring(folder, reference_examples(folder), options, "cpu")
    encoder = Encoder(read_tokenizer(folder), 128)
    responses = ("A banana is.", f"A {NO_LOSS} is.", f"A {NO_GRADIENT} is.", "A fruit is.", "It is.")
    rows = [encoder.encode("Name a fruit.", response) for response in responses]
    alone, together = LocalScorer(given), copies(given, 2)
    try:
        expected, found = alone.first_orders(rows), together.first_orders(rows)
        assert [each.reason for each in expected] == [None, "non_finite_loss", "non_finite_gradient", None, None]
        for example, one, other in zip(rows, expected, found, strict=True):
            pairs = [(one, other), (alone.exact(example), together.exact(example))]
            pairs.append((alone.corrected(example, one), together.corrected(example, other)))
            for first, second in pairs:
                assert second.reason == first.reason
                assert second.score == pytest.approx(first.score, rel=1e-5, abs=5e-8, nan_ok=True)
    finally:
        together.close()


def test_a_broken_checkpoint_is_named_by_the_rank_that_holds_the_part(tmp_path: Path) -> None:
    given = scoring(tmp_path)
    weights = load_file(tmp_path / "weights.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][-1, -1] = float("nan")
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(
        StageError, match=r"weights.safetensors: model.layers.1.mlp.up_proj.weight: holds NaN"
    ) as caught:
        RankedScorer(given, 2)
    assert caught.value.code == ExitCode.BAD_DATA


def test_a_rank_that_is_killed_is_out_of_memory_and_ends_the_others(tmp_path: Path, five: list[Example]) -> None:
    together = RankedScorer(scoring(tmp_path), 2)
    processes = list(together._processes)
    os.kill(processes[1].pid, signal.SIGKILL)
    with pytest.raises(StageError, match="killed") as caught:
        together.first_orders(five)
    assert caught.value.code == ExitCode.OUT_OF_MEMORY
    assert not any(process.is_alive() for process in processes)


def test_the_stage_scores_with_two_ranks_as_with_one(file_store: Store, tmp_path: Path) -> None:
    inputs = stage_inputs(file_store, checkpoint(tmp_path / "student"))
    settings = {"max_tokens": 128, "gradient_groups": 0, "method": "first_order", "lr": LR}
    alone = run_stage(file_store, "influence", settings, inputs).table().to_pylist()
    other = type(file_store)(tmp_path / "other")  # in this one the artifact is there already
    inputs = stage_inputs(other, tmp_path / "student")
    together = run_stage(other, "influence", {**settings, "ranks": 2}, inputs).table().to_pylist()
    assert [row["response_id"] for row in together] == [row["response_id"] for row in alone]
    for one, two in zip(alone, together, strict=True):
        assert two["score"] == pytest.approx(one["score"], rel=1e-5)
