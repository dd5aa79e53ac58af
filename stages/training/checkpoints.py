"""A training's checkpoints in the store, below the artifact that it is to become.

    OUTPUT/checkpoints/step-000040/attempt=3f…/…     what DeepSpeed and the trainer wrote
    OUTPUT/checkpoints/step-000040/complete.json     written last, by conditional PUT: without it nothing is there

DeepSpeed's checkpoint is one of so many ranks and of one ZeRO stage; another number of ranks starts from the beginning.
Several pods upload the files of their own ranks each, and the first one writes the marker once all are there. In how
many pods the ranks were does not matter afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.contract.canonical import sha256_file
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store

MARKER = "complete.json"


class CheckpointFile(BaseModel):
    size: int
    sha256: str


Files = dict[str, CheckpointFile]


class Checkpoint(BaseModel):
    """The marker of one complete checkpoint; `layout` is what a training must share with it to go on from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    attempt: str
    layout: dict[str, int]
    files: Files


def upload_part(store: Store, output: str, folder: Path, *, step: int, attempt: str) -> Files:
    """Uploads what the ranks of this machine wrote of a checkpoint."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        store.put_file(f"{_prefix(output, step)}/attempt={attempt}/{name}", path)
        files[name] = CheckpointFile(size=path.stat().st_size, sha256=sha256_file(path))
    return files


def complete_checkpoint(
    store: Store, output: str, files: Files, *, step: int, attempt: str, layout: dict[str, int]
) -> None:
    """Marks a checkpoint of which every file is there as complete, then removes those before it."""
    record = Checkpoint(step=step, attempt=attempt, layout=layout, files=files)
    # Over a marker that stood there: a checkpoint that could be used would have been gone on from, past this step.
    store.put(f"{_prefix(output, step)}/{MARKER}", record.model_dump_json().encode())
    remove_checkpoints(store, output, before=step)


@dataclass(frozen=True)
class Found:
    """A whole checkpoint on this machine, and the key of its marker in the store."""

    step: int
    folder: Path
    marker: str


def find_checkpoint(store: Store, output: str, scratch: Path, layout: dict[str, int], log: Any) -> Found | None:
    """The latest whole checkpoint with this layout, its bytes checked; None where there is none."""
    keys = [key for key, _ in store.list(f"{output}/checkpoints/") if key.endswith(f"/{MARKER}")]
    for key in sorted(keys, reverse=True):
        try:
            record = Checkpoint.model_validate_json(store.get(key))
            if record.layout != layout:
                log.warning("a checkpoint of another layout is left alone", key=key, has=record.layout, need=layout)
                continue
            return Found(record.step, _fetch(store, key, record, scratch), key)
        except (StageError, ValidationError) as error:
            if isinstance(error, StageError) and error.code != ExitCode.BAD_DATA:
                raise
            log.warning("a checkpoint cannot be used", key=key, error=str(error))
    return None


def fetch_checkpoint(store: Store, marker: str, scratch: Path) -> Found:
    """The checkpoint that another pod found.

    Raises:
        StageError: STORE where it is not what that pod read: trying again finds the same or another one.
    """
    try:
        record = Checkpoint.model_validate_json(store.get(marker))
        return Found(record.step, _fetch(store, marker, record, scratch), marker)
    except StageError as error:
        if error.code != ExitCode.BAD_DATA:
            raise
        raise StageError(error.message, code=ExitCode.STORE, where=error.where) from None


def remove_checkpoints(store: Store, output: str, *, before: int | None = None) -> None:
    """Removes all checkpoints, or those of steps before `before`; markers first, so that none is left half there."""
    keys = [key for key, _ in store.list(f"{output}/checkpoints/")]
    limit = None if before is None else _prefix(output, before)
    old = [key for key in keys if limit is None or key < limit]
    store.delete(key for key in old if key.endswith(f"/{MARKER}"))
    store.delete(key for key in old if not key.endswith(f"/{MARKER}"))


def _prefix(output: str, step: int) -> str:
    return f"{output}/checkpoints/step-{step:08d}"


def _fetch(store: Store, marker: str, record: Checkpoint, scratch: Path) -> Path:
    root = f"{marker.removesuffix(f'/{MARKER}')}/attempt={record.attempt}"
    local = store.local_path(root)
    folder = local or scratch / f"resume-{record.step}"
    for name, file in record.files.items():
        path = folder / name
        if local is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(f"{root}/{name}", path)
        if not path.is_file() or path.stat().st_size != file.size or sha256_file(path) != file.sha256:
            raise StageError(
                "the file's bytes are not those that were saved",
                code=ExitCode.BAD_DATA,
                where=f"{root}/{name}",
            )
    return folder
