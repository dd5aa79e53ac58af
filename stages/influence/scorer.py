"""Scores of rows, in this process or in ranks of it that share one student. The stages see no difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from stages.influence.examples import Example
from stages.influence.results import ExactResult, FirstOrderResult, ProbeOptions
from stages.influence.scores import Floats

if TYPE_CHECKING:
    import torch

    from stages.influence.zero import Zero


@dataclass(frozen=True)
class Scoring:
    """What a scorer is built from; it is sent to other processes.

    Attributes:
        folder: a warm-up checkpoint.
        reference: the encoded reference rows.
        device: `cpu` or `cuda`.
    """

    folder: Path
    reference: Sequence[Example]
    options: ProbeOptions
    device: str


@dataclass(frozen=True)
class Base:
    """The reference set at the base: Σ nll and scored tokens of each row [R], and which rows `corrected` evaluates.

    `sequence_tokens` are all of its tokens, `parameters` the student's.
    """

    nll: Floats
    tokens: npt.NDArray[np.int64]
    corrected_rows: list[int]
    sequence_tokens: int
    parameters: int


class Scorer(Protocol):
    """Answers are those of probe.py; errors are StageErrors."""

    def base(self) -> Base:
        """The reference set at the base."""

    def first_orders(self, examples: Sequence[Example]) -> list[FirstOrderResult]:
        """First order of each."""

    def exact(self, example: Example) -> ExactResult:
        """A whole reference pass."""

    def corrected(self, example: Example, first: FirstOrderResult) -> ExactResult:
        """First order, corrected on some groups of reference rows."""

    def correct(self, first: FirstOrderResult, exact: ExactResult) -> tuple[float, float]:
        """(what `corrected` would have said, its standard error) of a candidate scored both ways."""

    def noise(self, examples: Sequence[Example], draws: int) -> dict[str, float]:
        """The numerical noise floor of each method."""

    def close(self) -> None:
        """Ends what was started."""


class LocalScorer:
    """This process: on one device, or as one of the ranks that a student is partitioned over."""

    def __init__(self, scoring: Scoring, *, device: torch.device | None = None, ranks: Zero | None = None) -> None:
        import torch

        from stages.influence.probe import Prober
        from stages.influence.state import build_student, load_state

        model = (ranks.build if ranks else build_student)(scoring.folder)
        state = load_state(scoring.folder, model, ranks)
        device = device or torch.device(scoring.device)
        self.prober = Prober(model, state, scoring.reference, scoring.options, device=device, ranks=ranks)

    def base(self) -> Base:
        prober = self.prober
        parameters = sum(shape.numel() for shape in prober.ranks.shapes(prober.loss.model).values())
        tokens = sum(len(example.ids) for example in prober.reference)
        return Base(prober.base_nll, prober.reference_tokens, prober.corrected_rows, tokens, parameters)

    def first_orders(self, examples: Sequence[Example]) -> list[FirstOrderResult]:
        return self.prober.first_orders(examples)

    def exact(self, example: Example) -> ExactResult:
        return self.prober.exact(example)

    def corrected(self, example: Example, first: FirstOrderResult) -> ExactResult:
        return self.prober.corrected(example, first)

    def correct(self, first: FirstOrderResult, exact: ExactResult) -> tuple[float, float]:
        return self.prober.correct(first, exact.nll)

    def noise(self, examples: Sequence[Example], draws: int) -> dict[str, float]:
        from stages.influence.noise import drift_noise, exact_noise, first_order_noise

        sigma = {"first_order": first_order_noise(self.prober, examples)}
        sigma |= exact_noise(self.prober, examples, draws=draws)
        drift = drift_noise(self.prober, draws=draws)
        return {name: each if name == "exact" else math.hypot(each, drift) for name, each in sigma.items()}

    def close(self) -> None:
        pass
