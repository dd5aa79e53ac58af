"""scikit-learn, which a stage's process leaves out of its start."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from stages.imports import bring_back_sklearn, leave_out_sklearn


def test_scikit_learn_is_away_until_it_is_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    del sys.modules["sklearn"]
    leave_out_sklearn()
    assert find_spec("sklearn") is None, "transformers asks so"
    bring_back_sklearn()
    assert find_spec("sklearn") is not None


def test_one_that_is_imported_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", sys)
    leave_out_sklearn()
    bring_back_sklearn()
    assert sys.modules["sklearn"] is sys
