"""Candidates as `responses` makes them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from tests.support import publish

PROMPTS, INSTRUCTIONS, RESPONSES = 3, 2, 2


def candidates() -> list[dict[str, Any]]:
    """Prompts × instructions × responses, one row that is for the warm-up and one that is not usable."""
    rows = [
        {
            "response_id": f"r-{prompt}-{instruction}-{sample}",
            "instruction_id": f"i-{prompt}-{instruction}",
            "prompt_id": f"p-{prompt}",
            "prompt": f"<user>Name {prompt} birds, try {instruction}.<assistant>",
            "instruction": f"Name {prompt} birds, try {instruction}.",
            "output": f"Bird {sample}.",
            "response": f"Bird {sample}.",
            "usable": True,
            "split": "candidate",
        }
        for prompt in range(PROMPTS)
        for instruction in range(INSTRUCTIONS)
        for sample in range(RESPONSES)
    ]
    return [
        *rows,
        {**rows[0], "response_id": "r-warmup", "split": "warmup"},
        {**rows[0], "response_id": "r-empty", "response": "", "usable": False},
    ]


SCORED = [row["response_id"] for row in candidates() if row["usable"] and row["split"] == "candidate"]


def responses(store: Store, rows: list[dict[str, Any]] | None = None) -> ArtifactInput:
    return publish(store, "responses", tables={"rows": pa.Table.from_pylist(rows or candidates())})
