"""A recipe of the whole loop that real stages carry out in minutes: two random Llamas of 40,000 weights.

Its teacher writes noise. One output in a few has the closing tag, which is one token of it, and that is all that the
loop needs: what is tested is that a cluster computes what one machine does, not what comes of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support import tiny_llama

_ENGINE = {"kind": "transformers", "max_model_len": 1024, "dtype": "float32", "batch_size": 8}
RANKS = 2  # of influence in one pod; of a training over two pods, or over one machine


def recipe(folder: Path) -> dict[str, Any]:
    """The recipe; its two models are made in `folder`."""
    teacher, student = (
        tiny_llama(folder / name, seed=seed, length=1024, words=("</instruction>",))
        for name, seed in (("teacher", 1), ("student", 2))
    )
    training = {"dtype": "float32", "batch": 2, "max_tokens": 1024, "micro_batch": 1, "learning_rate": 1e-3}
    return {
        "teacher": {"model": str(teacher)},
        "student": {"model": str(student)},
        "measure": False,
        "prepare": {
            "seeds": {"uri": "builtin:seeds", "limit": 40},
            "reference": {"uri": "builtin:reference", "limit": 6},
        },
        "instructions": {
            "engine": _ENGINE,
            "prompts": 16,
            "samples": 3,
            "examples": 2,
            "generated_examples": 1,
            "template": "Write one.{% for example in examples %} {{ example[:40] }}{% endfor %}",
            "prefill": "<instruction>",
            "least_parsed": 0.01,
            "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 200},
            "chunk_rows": 8,
        },
        "curate": {"warmup_rows": 3, "unsuitable_words": []},
        "responses": {
            "engine": _ENGINE,
            "samples": 2,
            "warmup_samples": 2,
            "keep_truncated": True,
            "sampling": {"max_tokens": 12},
            "chunk_rows": 4,
        },
        "warmup": training,
        "audit": {"size": 2, "noise_candidates": 1},
        "influence": {"method": "first_order", "max_tokens": 512, "ranks": RANKS, "chunk_rows": 1},
        "pairs": {"policy": "ranked", "heldout_share": 0},
        # Long enough to lose a pod between the first checkpoint and the end.
        "dpo": training | {"epochs": 40, "checkpoint_steps": 4},
        "sft": training | {"epochs": 100, "checkpoint_steps": 4},
        "fresh": {"instructions": {"prompts": 8, "seed": 1}, "curate": {"most_rows": 6}},
        "run": {"shards": {"instructions": 2, "influence": 2}},
    }


def write(folder: Path, name: str, values: dict[str, Any], **changes: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, **values, **changes}))
    return path
