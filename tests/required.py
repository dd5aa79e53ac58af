"""What a test needs of this machine; `tests.support` itself has no pytest, since the cluster tests' image has none."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, why: str) -> NoReturn:
    """Skips a test that needs `what` of this machine; fails it where MONTESSORI_REQUIRE (a,b,…) names that."""
    if what in os.environ.get("MONTESSORI_REQUIRE", "").split(","):
        pytest.fail(f"{why}; MONTESSORI_REQUIRE names {what}")
    pytest.skip(why)
