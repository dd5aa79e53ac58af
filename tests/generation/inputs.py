"""Inputs of the generating stages."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stages.contract.canonical import digest
from stages.contract.store import Store
from stages.contract.task import ArtifactInput, ModelInput
from tests.support import publish

REMOTE = ModelInput(source={"model": "org/remote"}, digest=digest("remote"))
LOCAL: dict[str, Any] = {
    "engine": {"kind": "transformers", "dtype": "float32", "batch_size": 8},
    "sampling": {"max_tokens": 8},
}


def remote(url: str) -> dict[str, Any]:
    return {"kind": "openai", "base_url": url, "model": "m", "attempts": 1}


def seeds(store: Store, count: int = 12) -> ArtifactInput:
    rows = [{"seed_id": f"s{i:02}", "instruction": f"Name {i} birds.", "response": None} for i in range(count)]
    return publish(store, "prepare", tables={"seeds": pa.Table.from_pylist(rows)})


def kept(store: Store, splits: list[str]) -> ArtifactInput:
    """Curated instructions, one of each split named."""
    rows = [
        {
            "instruction_id": f"i{number:02}",
            "prompt_id": f"p{number // 2:02}",
            "prompt": "Write one.",
            "output": f"Name {number} fish.</instruction>",
            "instruction": f"Name {number} fish.",
            "split": split,
        }
        for number, split in enumerate(splits)
    ]
    return publish(store, "curate", tables={"rows": pa.Table.from_pylist(rows)})
