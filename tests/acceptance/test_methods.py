"""Every method of a comparison in one run: real stages on random models of 40,000 weights, to the table of them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

from tests.acceptance.running import run_to_end
from tests.cluster.tiny import recipe, write
from tests.generation.inputs import remote
from tests.generation.server import Answer, says, serving

COMPARED = ["self-instruct", "self-reward", "llm2llm", "random", "no-finetuning"]
LIMIT_S = 3000.0


def rated(_: int, body: dict[str, Any]) -> Answer:
    """A judge whose rating hangs on the text."""
    return says(f"Score: {crc32(json.dumps(body['messages']).encode()) % 6}")


def test_all_methods_share_what_is_the_same_and_end_in_one_table(tmp_path: Path) -> None:
    short = {"epochs": 1}
    with serving(rated) as server:
        values = recipe(tmp_path)
        many = {"engine": values["instructions"]["engine"] | {"batch_size": 32}, "chunk_rows": 10}
        path = write(
            tmp_path,
            "methods",
            values,
            compare=COMPARED,
            benchmarks=["harness"],
            harness={"limit": 4},
            judge={"engine": remote(server.url), "samples": 1},
            dpo=values["dpo"] | short,
            sft=values["sft"] | short,
            influence=values["influence"] | {"ranks": 1},
            instructions=values["instructions"] | many | {"prompts": 40},
            reseed={"least_seeds": 2, "share": 1.0},
            fresh={"instructions": {"prompts": 40, "seed": 1}, "curate": {"most_rows": 6, "least_rows": 1}},
            budget={"match": "rows", "least_rows": 1},
            run={"jobs": 2},
        )
        made = run_to_end(path, tmp_path, LIMIT_S)
    assert "self-reward.it1.responses" not in made, "the first round's candidates are shared"
    cells = made["comparison"].table("cells").to_pylist()
    students = {"base", "tailored", "self-instruct", "self-reward", "llm2llm", "random"}
    assert {(row["measure"], row["student"]) for row in cells} == {
        (measure, student) for measure in ("loss", "harness_montessori_choices") for student in students
    }
    rows = {name: made[f"{name}.budget"].manifest.tables["rows"] for name in students - {"base"}}
    assert len(set(rows.values())) == 1, f"all on equal rows: {rows}"
