"""Fixtures that are read and never written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stages.influence.examples import Example
from stages.influence.state import AdamState
from tests.influence.builders import examples, llama, warmed_up
from tests.influence.oracle import Oracle

LR = 1e-3


@pytest.fixture(scope="session")
def state() -> AdamState:
    return warmed_up(llama())


@pytest.fixture(scope="session")
def reference() -> list[Example]:
    return examples(12, seed=1)


@pytest.fixture(scope="session")
def candidates() -> list[Example]:
    return examples(10, seed=2)


@pytest.fixture(scope="session")
def oracle(state: AdamState, reference: list[Example]) -> Oracle:
    return Oracle(llama(), state, reference, lr=LR)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A tiny model's matrices are too small to share: with more threads these tests only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
