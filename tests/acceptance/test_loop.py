"""The whole loop with the real small model, cut short: killed in the middle, carried on, and used as a user would.

The recipe is the quickstart with smaller numbers and a smaller student. Both engines write: vLLM the responses to
candidates, transformers the rest.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages.contract.store import FileStore

PROGRAM = Path(sys.executable).with_name("montessori")
RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
SMALLER = {
    "compare": "[]",
    "student.drop_layers": str(list(range(4, 28))),
    "prepare.reference.limit": "8",
    "instructions.prompts": "5",
    "instructions.engine.kind": "transformers",
    "instructions.chunk_rows": "3",
    "instructions.sampling.max_tokens": "48",
    "curate.warmup_rows": "5",
    "responses.samples": "2",
    "responses.warmup_samples": "1",
    "responses.chunk_rows": "4",
    "responses.sampling.max_tokens": "24",
    "audit.size": "3",
    "influence.chunk_rows": "1",
    "pairs.heldout_share": "0",
    "sft.rows": "2",
    # Processors without bf16 products take four times as long for them; tests/training trains in both.
    "warmup.dtype": "float32",
    "dpo.dtype": "float32",
    "sft.dtype": "float32",
    "dpo.batch": "2",
    "fresh": json.dumps(
        {
            "instructions": {"prompts": 2, "seed": 1, "engine": {"kind": "transformers"}},
            "responses": {"engine": {"kind": "transformers"}},
            "curate": {"most_rows": 5},
        }
    ),
}
LIMIT_S = 1800.0


class Workplace:
    """One folder with a store and a place for the output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FileStore(folder / "store")

    def command(self, *arguments: str) -> list[str]:
        return [str(PROGRAM), *arguments, "--store", str(self.folder / "store")]

    def start(self) -> subprocess.Popen[str]:
        changes = [text for key, value in SMALLER.items() for text in ("--set", f"{key}={value}")]
        return subprocess.Popen(
            self.command("run", str(RECIPE), *changes, "--to", str(self.folder / "runs")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )

    def run(self) -> str:
        process = self.start()
        try:
            out, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
        assert process.returncode == 0, out
        return out

    def ask(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200"}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def chunks(self, stage: str) -> dict[str, int]:
        """Committed chunks of a stage and when each was written."""
        folder = self.folder / "store" / "artifacts" / stage
        return {str(path): path.stat().st_mtime_ns for path in folder.rglob("chunk-*.json")}

    def await_(self, condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A run whose runner was killed while vLLM wrote responses, and which the same command then ended."""
    place = Workplace(tmp_path_factory.mktemp("loop"))
    process = place.start()
    place.await_(lambda: len(place.chunks("responses")) >= 2, process)
    process.kill()
    process.communicate()
    written = place.chunks("responses")
    out = place.run()
    assert "it1.instructions: done (cached)" in out, "what was complete ran again"
    assert {name: place.chunks("responses")[name] for name in written} == written, "committed chunks were written again"
    return place


@pytest.fixture(scope="module")
def output(finished: Workplace) -> Path:
    return finished.folder / "runs" / "quickstart"


def test_a_second_run_finds_everything_cached_and_starts_nothing(finished: Workplace) -> None:
    tasks = list(finished.store.list("runs/quickstart/tasks/"))
    out = finished.run()
    assert re.search(r"everything was cached: (\d+) of \1 nodes", out)
    assert list(finished.store.list("runs/quickstart/tasks/")) == tasks


def test_the_dataset_is_whole_and_clean(output: Path) -> None:
    rows = pq.read_table(output / "dataset" / "train.parquet").to_pylist()
    assert 1 <= len(rows) <= 5
    assert [json.loads(line)["response_id"] for line in (output / "dataset" / "train.jsonl").open()] == [
        row["response_id"] for row in rows
    ]
    for row in rows:
        assert row["instruction"].strip() and row["response"].strip()
        assert "<instruction>" not in row["instruction"] and "</instruction>" not in row["instruction"]
    assert (output / "dataset" / "README.md").read_text().startswith("---\n")


@pytest.mark.parametrize(("name", "layers"), [("teacher", 30), ("student", 6)])
def test_the_models_load_and_are_no_copies_of_what_they_began_as(output: Path, name: str, layers: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.models.settings import installed_folder

    model = AutoModelForCausalLM.from_pretrained(output / name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(output / name)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], return_tensors="pt", return_dict=True)
    assert torch.isfinite(model(**ids).logits).all()
    assert model.config.num_hidden_layers == layers
    began = AutoModelForCausalLM.from_pretrained(installed_folder("smollm2"), dtype=torch.float32)
    mine, its = model.model.layers[0].mlp.up_proj.weight, began.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(mine, its)
    assert torch.allclose(mine, its, atol=0.05)


def test_the_report_needs_no_network_and_tells_of_both_students(output: Path) -> None:
    html = (output / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", html)
    for word in ("The loop", "helpful", "Preference pairs", "held-out", "reliability", "tailored", "base", "seconds"):
        assert word in html
    summary = json.loads((output / "summary.json").read_text())["numbers"]
    assert set(summary["students"]["students"]) == {"base", "tailored"}
    assert summary["students"]["students"]["base"]["value"] > 0


def test_programs_get_json(finished: Workplace) -> None:
    status: dict[str, Any] = json.loads(finished.ask("status", "-o", "json"))
    assert status["phase"] == "done"
    assert {node["state"] for node in status["nodes"].values()} == {"done"}
    changes = [text for key, value in SMALLER.items() for text in ("--set", f"{key}={value}")]
    plan = json.loads(finished.ask("plan", str(RECIPE), *changes, "-o", "json"))
    assert {node["state"] for node in plan["nodes"]} == {"cached"}


def test_a_row_is_traced_to_its_prompt_teacher_pairs_and_checkpoint(finished: Workplace, output: Path) -> None:
    row = pq.read_table(output / "dataset" / "train.parquet").to_pylist()[0]
    text = finished.ask("trace", row["response_id"])
    for part in (row["response_id"], row["prompt_id"], str(row["sampling_seed"]), "it1.dpo"):
        assert part in text
    found = json.loads(finished.ask("trace", "0", "-o", "json"))
    assert json.dumps(found).count("it1.warmup") >= 1


def test_a_dead_shard_has_left_its_log(finished: Workplace) -> None:
    # By default the latest attempt's; the first one is the process that was killed.
    assert '"event": "done"' in finished.ask("logs", "it1.responses")
    assert "engine ready" in finished.ask("logs", "it1.responses", "--attempt", "1")


def test_results_can_be_written_again_elsewhere(finished: Workplace, output: Path, tmp_path: Path) -> None:
    finished.ask("export", "--to", str(tmp_path))
    again = tmp_path / "quickstart"
    assert (again / "report.html").read_bytes() == (output / "report.html").read_bytes()
    assert (again / "student" / "model.safetensors").stat().st_size > 10**7
