"""harness: what is read of lm-eval's results, and lm-eval itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.harness.adapter import bundled, read
from stages.harness.settings import BUNDLED
from tests.support import in_own_process, model_input, publish, run_stage, tiny_llama


def sample(number: int, *, filter: str = "none", **metrics: Any) -> dict[str, Any]:
    return {"doc_id": number, "filter": filter, "metrics": list(metrics), **metrics}


def results(samples: dict[str, Any], **higher_is_better: bool | None) -> dict[str, Any]:
    """What lm-eval returns, as far as it is read."""
    return {"samples": samples, "higher_is_better": dict.fromkeys(samples, higher_is_better)}


def test_the_first_metric_counts_unless_another_is_named() -> None:
    samples = {"arc": [sample(0, acc=1.0, acc_norm=0.0), sample(1, acc=0, acc_norm=1.0)]}
    found = results(samples, acc=True, acc_norm=True)
    assert [each.value for each in read(found, "arc", None).documents] == [1.0, 0.0]
    assert [each.value for each in read(found, "arc", "acc_norm").documents] == [0.0, 1.0]


def test_of_a_group_documents_keep_their_tasks_and_of_several_filters_the_first_counts() -> None:
    strict, loose = sample(0, exact_match=0.0, filter="strict"), sample(0, exact_match=1.0, filter="flexible")
    found = read(results({"one": [strict, loose], "two": [strict]}, exact_match=True), "group", None)
    assert [(each.task, each.document, each.value) for each in found.documents] == [
        ("one", "one/0", 0.0), ("two", "two/0", 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "metric", "words"),
    [
        ({"arc": [sample(0, acc=1.0)]}, "f1", "it has acc"),
        ({"wiki": [sample(0, word_perplexity=(3.1, 7))]}, None, "no number for each document"),
        ({"arc": []}, None, "has no document"),
    ],
)
def test_what_students_cannot_be_paired_on_is_refused(found: Any, metric: str | None, words: str) -> None:
    with pytest.raises(StageError, match=words) as caught:
        read(results(found), "task", metric)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_of_some_metrics_less_is_better() -> None:
    bias = {"crows_pairs": [sample(0, likelihood_diff=3.5, pct_stereotype=1.0)]}
    assert not read(results(bias, likelihood_diff=False, pct_stereotype=False), "crows_pairs", None).higher_is_better
    assert read(results({"arc": [sample(0, acc=1.0)]}, acc=True), "arc", None).higher_is_better


@pytest.mark.parametrize(
    "said", [{"one": {"acc": None}}, {"one": {}}, {"one": None}, {"one": {"acc": True}, "two": {}}]
)
def test_a_metric_of_which_nobody_says_what_is_better_is_refused(said: Any) -> None:
    found = {"samples": {name: [sample(0, acc=1.0)] for name in said}, "higher_is_better": said}
    with pytest.raises(StageError, match="does not say whether more or less of acc is better in 'own'") as caught:
        read(found, "own", None)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_the_bundled_task_needs_no_network_and_spreads_its_answers() -> None:
    (path,) = BUNDLED.glob("*.yaml")
    task = bundled(path.stem)
    rows = [json.loads(line) for line in Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()]
    assert len(rows) == 24 and all(len(set(row["choices"])) == 4 for row in rows)
    assert sorted({row["answer"] for row in rows}) == [0, 1, 2, 3]
    assert task["dataset_path"] == "json"


def test_without_lm_eval_the_next_step_is_said(
    file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    student = publish(file_store, "sft", folder=model)
    with pytest.raises(StageError, match=r"montessori\[lm-eval\]") as caught:
        run_stage(file_store, "harness", {}, {"student.base": student})
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_students_are_measured_on_the_bundled_task_and_compared(file_store: Store, tmp_path: Path) -> None:
    students = {f"student.{name}": model_input(tiny_llama(tmp_path / name, seed=n)) for n, name in enumerate("ab")}
    made = run_stage(file_store, "harness", {"limit": 8}, students)
    rows = made.table().to_pylist()
    assert len(rows) == 16 and {row["value"] for row in rows} <= {0.0, 1.0}
    given = publish(file_store, "harness", tables={"rows": pa.Table.from_pylist(rows)})
    compared = run_stage(file_store, "comparison", {"baseline": "a", "resamples": 200}, {"harness": given})
    cells = {row["student"]: row["value"] for row in compared.table("cells").to_pylist()}
    mean = sum(row["value"] for row in rows if row["student"] == "a") / 8
    assert cells["a"] == pytest.approx(100 * mean)
    assert {row["better"] for row in compared.table("cells").to_pylist()} == {"higher"}


def test_what_a_task_asks_can_be_compared_with(file_store: Store) -> None:
    settings = {"which": "harness", "harness": {"limit": 3}}
    rows = run_stage(file_store, "evalset", settings).table().to_pylist()
    assert [row["question_id"] for row in rows] == [f"montessori_choices/{number}" for number in range(3)]
    assert rows[0]["turns"] == ["What colour is a ripe banana?"] and rows[0]["category"] == "montessori_choices"


BACKENDS = """
import json, sys
from pathlib import Path
from stages.harness.adapter import evaluate
from stages.harness.settings import HarnessSettings

found = {}
for backend in ("vllm", "hf"):
    settings = HarnessSettings(backend=backend, limit=8, dtype="float32", max_tokens=256)
    found[backend] = [each.value for each in evaluate(Path(sys.argv[1]), "montessori_choices", settings).documents]
Path(sys.argv[2]).write_text(json.dumps(found))
"""


def test_vllm_and_transformers_answer_alike(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model", hidden=128, heads=2)  # vLLM's CPU attention has no heads of 8
    found = in_own_process(BACKENDS, tmp_path, model)
    assert len(found["vllm"]) == 8 and found["vllm"] == found["hf"]


def test_an_unknown_task_is_named(file_store: Store, tiny_model: Path) -> None:
    with pytest.raises(StageError, match="knows no task 'arc_esay'"):
        run_stage(file_store, "harness", {"tasks": ["arc_esay"]}, {"student.base": model_input(tiny_model)})
