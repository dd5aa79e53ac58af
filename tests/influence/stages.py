"""What tests of the stages `audit` and `influence` share: a tiny warm-up checkpoint, reference rows, candidates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.contract.store import Store
from stages.contract.task import Input
from stages.influence.examples import Encoder
from tests.influence.builders import warmed_up
from tests.support import CORPUS, publish, tiny_llama

REFERENCE = [
    {"ref_id": f"ref-{number}", "instruction": f"Say it {number} times.", "response": text}
    for number, text in enumerate(CORPUS)
]
PROMPTS, INSTRUCTIONS, RESPONSES = 3, 3, 2


def candidates() -> list[dict[str, Any]]:
    """Rows as `responses` makes them: prompts × instructions × responses, and one row for the warm-up."""
    rows = []
    for prompt in range(PROMPTS):
        for instruction in range(INSTRUCTIONS):
            for sample in range(RESPONSES):
                words = CORPUS[(prompt + instruction) % len(CORPUS)].split()
                rows.append(
                    {
                        "response_id": f"r-{prompt}-{instruction}-{sample}",
                        "instruction_id": f"i-{prompt}-{instruction}",
                        "prompt_id": f"p-{prompt}",
                        "instruction": " ".join(words[:4]),
                        "response": " ".join(words[sample : 5 + 2 * sample + prompt]),
                        "usable": True,
                        "split": "candidate",
                    }
                )
    return [*rows, {**rows[0], "response_id": "r-warmup", "split": "warmup"}]


def checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """A Hugging Face folder with θ, m and v after a few steps on the reference's own kind of text."""
    tiny_llama(folder, seed=seed)
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), 128)
    rows = encoder.encode_reference((row["ref_id"], row["instruction"], row["response"]) for row in REFERENCE)
    warmed_up(AutoModelForCausalLM.from_pretrained(folder), steps=len(rows), rows=rows).save(folder)
    return folder


def stage_inputs(
    store: Store,
    folder: Path,
    *,
    rows: list[dict[str, Any]] | None = None,
    reference: list[dict[str, Any]] | None = None,
) -> Mapping[str, Input]:
    """The three inputs that both stages have."""
    return {
        "rows": publish(store, "responses", tables={"rows": pa.Table.from_pylist(rows or candidates())}),
        "checkpoint": publish(store, "warmup", folder=folder),
        "reference": publish(store, "prepare", tables={"probe": pa.Table.from_pylist(reference or REFERENCE)}),
    }
