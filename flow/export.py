"""A run's results as a folder that is of use without this project: data set, models, report.

    dataset/train.parquet, train.jsonl, README.md      teacher/, student/
    report.html, summary.json, figures/, tables/       export.json: which artifacts these are

Everything is written beside its place and renamed into it. Between the first and the last rename export.json says
`complete: false`, so a reader knows, and the next export does it again. Weights are hard links where the store is a
folder of the same disk: they cost no space, and a program that rewrites one in place would change the store's copy,
which the store's checksums then notice.

What else lies in the folder is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.contract.artifact import Artifact
from stages.contract.canonical import digest
from stages.contract.context import cache_folder
from stages.contract.errors import bad_data, bad_settings
from stages.contract.store import Store
from stages.contract.tables import write_parquet

STAMP = "export.json"
VERSION = 1
OWNED = ("dataset", "teacher", "student", "report.html", "summary.json", "figures", "tables")
_CARD = "README.md"
_CHECKPOINT = "checkpoint-"
_PARTIAL = ".partial-"
_ABANDONED_S = 3600.0
_LINKED_BYTES = 1 << 20  # smaller files are copied: people edit a config.json, nobody edits weights by hand
_COLUMNS = (
    "instruction", "response", "response_id", "instruction_id", "prompt_id", "sample", "sampling_seed", "teacher",
)  # fmt: skip


def export_run(store: Store, resolved: Mapping[str, Any], target: Path) -> Path:
    """Writes a finished run's results to `target` and returns it; does nothing if they are there already.

    Args:
        resolved: what runs/RUN/resolved.json holds: nodes with key and digest, and which of them are outputs.

    Raises:
        StageError: BAD_SETTINGS if `target` holds a file of the same name that no export wrote; BAD_DATA for an
            artifact whose bytes are not those that were published, and for a data set without usable rows.
    """
    identity = _identity(resolved)
    stamp = _read_stamp(target)
    if stamp.get("complete") and stamp.get("identity") == identity and _intact(target, stamp["files"]):
        return target
    _refuse_foreign(target, stamp)
    target.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    partial = target / f"{_PARTIAL}{uuid.uuid4().hex[:12]}"
    partial.mkdir()
    try:
        _write_all(store, resolved, partial)
        files = {path.relative_to(partial).as_posix(): path.stat().st_size for path in _files(partial)}
        about = {"version": VERSION, "run": resolved["run"], "store": store.uri, "identity": identity}
        about["outputs"] = {name: {"node": node, **_of(resolved, node)} for name, node in resolved["outputs"].items()}
        _write_stamp(target, {**about, "complete": False, "files": {}})
        _replace(target, partial)
        _write_stamp(target, {**about, "complete": True, "files": files})
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def dataset_rows(store: Store, resolved: Mapping[str, Any]) -> pa.Table:
    """The run's data set: the usable rows of its responses, in the order in which `sft` numbers them (response_id).

    `influence` and `influence_stderr` are added where the run measured it; null for a row that was not scored.

    Raises:
        StageError: BAD_DATA if there is no usable row.
    """
    node = resolved["outputs"]["dataset"]
    responses = _artifact(store, resolved, node).table()
    rows = responses.filter(pc.equal(responses["usable"], True)).sort_by("response_id").select(list(_COLUMNS))
    if rows.num_rows == 0:
        raise bad_data("the data set has no usable row", where=node)
    return _with_influence(rows, store, resolved, node)


def scoring_node(resolved: Mapping[str, Any], node: str) -> str | None:
    """The node that measured the influence of another node's rows, if one did."""
    return next(
        (
            name
            for name, each in resolved["nodes"].items()
            if each["stage"] == "influence" and each["inputs"].get("rows", {}).get("node") == node
        ),
        None,
    )


def _with_influence(rows: pa.Table, store: Store, resolved: Mapping[str, Any], node: str) -> pa.Table:
    scores = scoring_node(resolved, node)
    if scores is None:
        return rows
    found = _artifact(store, resolved, scores).table()
    of_row = dict(
        zip(
            found["response_id"].to_pylist(),
            zip(found["score"].to_pylist(), found["stderr"].to_pylist(), strict=True),
            strict=True,
        )
    )
    pairs = [of_row.get(each, (None, None)) for each in rows["response_id"].to_pylist()]
    for column, values in zip(("influence", "influence_stderr"), zip(*pairs, strict=True), strict=True):
        rows = rows.append_column(column, pa.array(values, pa.float64()))
    return rows


def _write_all(store: Store, resolved: Mapping[str, Any], folder: Path) -> None:
    outputs = resolved["outputs"]
    if "dataset" in outputs:
        _write_dataset(dataset_rows(store, resolved), folder / "dataset")
    for name in ("teacher", "student"):
        if name in outputs:
            _take(_artifact(store, resolved, outputs[name]).folder(cache_folder()), folder / name)
    if "report" in outputs:
        report = _artifact(store, resolved, outputs["report"]).folder(cache_folder())
        _take(report, folder)
        if (folder / _CARD).exists() and (folder / "dataset").is_dir():
            (folder / _CARD).rename(folder / "dataset" / _CARD)


def _write_dataset(rows: pa.Table, folder: Path) -> None:
    folder.mkdir()
    write_parquet(rows, folder / "train.parquet")
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for batch in rows.to_batches():
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist())


def _take(source: Path, target: Path) -> None:
    """Copies a folder's files; large ones become hard links where that is possible.

    A trained model's checkpoints stay in the store: they are for measuring.
    """
    for path in _files(source):
        if path.relative_to(source).parts[0].startswith(_CHECKPOINT):
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.stat().st_size >= _LINKED_BYTES:
            try:
                os.link(path, copy)
                continue
            except OSError:  # another disk, or a file system without links: a copy does as well
                pass
        shutil.copyfile(path, copy)


def _replace(target: Path, partial: Path) -> None:
    old = partial / ".old"
    old.mkdir()
    for name in OWNED:
        if os.path.lexists(target / name):
            os.rename(target / name, old / name)
        if os.path.lexists(partial / name):
            os.rename(partial / name, target / name)


def _refuse_foreign(target: Path, stamp: Mapping[str, Any]) -> None:
    if target.exists() and not target.is_dir():
        raise bad_settings("this is a file, not a folder", where=str(target), hint="choose another folder with --to")
    foreign = [name for name in OWNED if not stamp and os.path.lexists(target / name)]
    if foreign:
        raise bad_settings(
            f"the folder holds {', '.join(foreign)}, which no export wrote",
            where=str(target),
            hint="choose another folder with --to, or move it away",
        )


def _identity(resolved: Mapping[str, Any]) -> str:
    """What decides whether two exports are the same: the content of every output and of the scores of its rows."""
    outputs = {name: _of(resolved, node)["digest"] for name, node in resolved["outputs"].items()}
    scores = scoring_node(resolved, resolved["outputs"].get("dataset", ""))
    return digest([VERSION, outputs, _of(resolved, scores)["digest"] if scores else None])


def _of(resolved: Mapping[str, Any], node: str) -> dict[str, str]:
    found = resolved["nodes"][node]
    return {"key": found["key"], "digest": found["digest"]}


def _artifact(store: Store, resolved: Mapping[str, Any], node: str) -> Artifact:
    found = _of(resolved, node)
    return Artifact(store, found["key"], found["digest"])


def _read_stamp(target: Path) -> dict[str, Any]:
    try:
        found = json.loads((target / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("version") == VERSION else {}


def _write_stamp(target: Path, stamp: Mapping[str, Any]) -> None:
    partial = target / f"{_PARTIAL}{STAMP}"
    partial.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    partial.replace(target / STAMP)


def _intact(target: Path, files: Mapping[str, int]) -> bool:
    return all((path := target / name).is_file() and path.stat().st_size == size for name, size in files.items())


def _remove_abandoned(target: Path) -> None:
    """Removes what a killed export left; a younger one may still be at work."""
    for path in target.glob(f"{_PARTIAL}*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
