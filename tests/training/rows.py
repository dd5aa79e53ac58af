"""Rows and settings that tests of training share."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

# eps is large so that the sign of a gradient that is all rounding does not decide a step.
COMMON = {"batch": 4, "max_tokens": 100, "eps": 1e-4, "learning_rate": 1e-3, "dtype": "float32"}


def responses(count: int = 10, **columns: Any) -> pa.Table:
    return pa.table(
        {
            "response_id": [f"{number:04d}" for number in range(count)],
            "instruction": [f"Count to {number}." for number in range(count)],
            "response": [" ".join(map(str, range(number + 1))) for number in range(count)],
            "usable": [True] * count,
            "split": ["warmup"] * count,
        }
        | columns
    )
