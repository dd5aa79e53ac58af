"""A run's results as a folder: complete, the same when done again, and never over somebody else's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import flow.export
from flow.export import export_run
from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store
from tests.report.made_up import MadeUpRun, made_up_run
from tests.support import artifact_input, run_stage

OUTPUTS = {"dataset": "tailored.responses", "teacher": "it1.dpo", "student": "tailored.sft", "report": "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, MadeUpRun]:
    root = tmp_path_factory.mktemp("finished")
    store = FileStore(root / "store")
    run = made_up_run(store, root / "models", prompts=12)
    report = run_stage(store, "report", run.settings(), run.report_inputs())
    run.artifacts["report"] = artifact_input(report)
    run.inputs["report"] = {}
    return store, run


@pytest.fixture
def resolved(finished: tuple[Store, MadeUpRun]) -> dict[str, Any]:
    return finished[1].resolved(**OUTPUTS)


def stamp(target: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((target / "export.json").read_text())
    return found


def times(target: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(target.rglob("*"))}


def test_the_folder_holds_data_models_and_report(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path
) -> None:
    store, run = finished
    target = export_run(store, resolved, tmp_path / "runs" / "quickstart")
    assert {path.name for path in target.iterdir()} == {*flow.export.OWNED, "export.json"}
    table = pq.read_table(target / "dataset" / "train.parquet")
    lines = [json.loads(line) for line in (target / "dataset" / "train.jsonl").read_text().splitlines()]
    assert table.to_pylist() == lines
    assert all(row["response"] for row in lines)  # the unusable ones are empty
    assert table["response_id"].to_pylist() == sorted(table["response_id"].to_pylist())
    assert sum(row["influence"] is None for row in lines) == 1  # one row could not be scored
    assert (target / "dataset" / "README.md").read_text().startswith("---\n")
    for name, node in (("teacher", "dpo"), ("student", "tailored")):
        assert (target / name / "model.safetensors").read_bytes() == (
            run.folders[node] / "model.safetensors"
        ).read_bytes()
    assert "</html>" in (target / "report.html").read_text()
    assert stamp(target)["outputs"]["teacher"] == {
        "node": "it1.dpo", "key": run.artifacts["it1.dpo"].key, "digest": run.artifacts["it1.dpo"].digest,
    }  # fmt: skip


def test_weights_take_no_space_twice_and_settings_are_copies(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path
) -> None:
    store, run = finished
    target = export_run(store, resolved, tmp_path / "out")
    stored = Artifact(store, run.artifacts["it1.dpo"].key).folder(tmp_path / "cache")
    assert os.path.samefile(target / "teacher" / "model.safetensors", stored / "model.safetensors")
    assert not os.path.samefile(target / "teacher" / "config.json", stored / "config.json")


def test_a_second_export_touches_nothing(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path
) -> None:
    target = export_run(finished[0], resolved, tmp_path / "out")
    before = times(target)
    export_run(finished[0], resolved, target)
    assert times(target) == before


def test_a_missing_or_shortened_file_is_written_again(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path
) -> None:
    target = export_run(finished[0], resolved, tmp_path / "out")
    whole = (target / "dataset" / "train.jsonl").read_bytes()
    (target / "dataset" / "train.jsonl").write_bytes(whole[:50])
    (target / "report.html").unlink()
    export_run(finished[0], resolved, target)
    assert (target / "dataset" / "train.jsonl").read_bytes() == whole and (target / "report.html").exists()


def test_another_result_replaces_the_old_one_and_leaves_other_files_alone(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path
) -> None:
    store, run = finished
    target = export_run(store, resolved, tmp_path / "out")
    (target / "notes.txt").write_text("mine")
    other = run.resolved(dataset="self-instruct.responses", student="self-instruct.sft", report="report")
    export_run(store, other, target)
    assert (target / "notes.txt").read_text() == "mine"
    assert not (target / "teacher").exists()
    student = (target / "student" / "model.safetensors").read_bytes()
    assert student == (run.folders["self-instruct"] / "model.safetensors").read_bytes()
    assert not list(target.glob(".partial-*"))


def test_an_export_that_is_cut_off_is_not_taken_for_a_whole_one(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flow.export, "_replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            export_run(finished[0], resolved, target)
    assert stamp(target)["complete"] is False
    export_run(finished[0], resolved, target)
    assert stamp(target)["complete"] is True and (target / "report.html").exists()


def test_files_that_no_export_wrote_are_not_replaced(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "dataset").mkdir()
    with pytest.raises(StageError, match="holds dataset, which no export wrote") as caught:
        export_run(finished[0], resolved, tmp_path)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_flipped_byte_in_the_store_is_not_exported(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    run = made_up_run(store, tmp_path / "models", prompts=4)
    (weights,) = [key for key, _ in store.list(run.artifacts["it1.dpo"].key) if key.endswith(".safetensors")]
    data = bytearray(store.get(weights))
    data[1000] ^= 1
    store.put(weights, bytes(data))
    with pytest.raises(StageError, match="bytes are not those that were published") as caught:
        export_run(store, run.resolved(teacher="it1.dpo"), tmp_path / "out")
    assert caught.value.code == ExitCode.BAD_DATA
    assert not (tmp_path / "out" / "teacher").exists()


class RemoteStore(FileStore):
    """A store whose objects have to be fetched, as in a bucket."""

    def local_path(self, key: str) -> None:
        return None


def test_an_export_from_a_remote_store_gives_the_same_files(
    finished: tuple[Store, MadeUpRun], resolved: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONTESSORI_CACHE", str(tmp_path / "cache"))
    store = finished[0]
    assert isinstance(store, FileStore)
    local = export_run(store, resolved, tmp_path / "local")
    remote = export_run(RemoteStore(store.root), resolved, tmp_path / "remote")
    assert stamp(local)["files"] == stamp(remote)["files"] and stamp(local)["identity"] == stamp(remote)["identity"]
    assert (remote / "teacher" / "model.safetensors").read_bytes() == (
        local / "teacher" / "model.safetensors"
    ).read_bytes()
