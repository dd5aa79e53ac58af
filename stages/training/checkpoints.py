"""A training's checkpoints in the store, below the artifact that it is to become.

    OUTPUT/checkpoints/step-000040/attempt=3f…/…     what DeepSpeed and the trainer wrote
    OUTPUT/checkpoints/step-000040/complete.json     written last, by conditional PUT: without it nothing is there

DeepSpeed's checkpoint is one of so many ranks and of one ZeRO stage; another number of ranks starts from the beginning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.contract.canonical import sha256_file
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store

MARKER = "complete.json"


class _File(BaseModel):
    size: int
    sha256: str


class Checkpoint(BaseModel):
    """The marker of one complete checkpoint; `layout` is what a training must share with it to go on from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    attempt: str
    layout: dict[str, int]
    files: dict[str, _File]


def save_checkpoint(
    store: Store, output: str, folder: Path, *, step: int, attempt: str, layout: dict[str, int]
) -> None:
    """Uploads a checkpoint's folder, marks it as complete, then removes those before it."""
    prefix = _prefix(output, step)
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        store.put_file(f"{prefix}/attempt={attempt}/{name}", path)
        files[name] = _File(size=path.stat().st_size, sha256=sha256_file(path))
    record = Checkpoint(step=step, attempt=attempt, layout=layout, files=files)
    # Over a marker that stood there: a checkpoint that could be used would have been gone on from, past this step.
    store.put(f"{prefix}/{MARKER}", record.model_dump_json().encode())
    remove_checkpoints(store, output, before=step)


def find_checkpoint(
    store: Store, output: str, scratch: Path, layout: dict[str, int], log: Any
) -> tuple[int, Path] | None:
    """(step, folder) of the latest whole checkpoint with this layout, its bytes checked; None where there is none."""
    keys = [key for key, _ in store.list(f"{output}/checkpoints/") if key.endswith(f"/{MARKER}")]
    for key in sorted(keys, reverse=True):
        try:
            record = Checkpoint.model_validate_json(store.get(key))
            if record.layout != layout:
                log.warning("a checkpoint of another layout is left alone", key=key, has=record.layout, need=layout)
                continue
            return record.step, _fetch(store, key.removesuffix(f"/{MARKER}"), record, scratch)
        except (StageError, ValidationError) as error:
            if isinstance(error, StageError) and error.code != ExitCode.BAD_DATA:
                raise
            log.warning("a checkpoint cannot be used", key=key, error=str(error))
    return None


def remove_checkpoints(store: Store, output: str, *, before: int | None = None) -> None:
    """Removes all checkpoints, or those of steps before `before`; markers first, so that none is left half there."""
    keys = [key for key, _ in store.list(f"{output}/checkpoints/")]
    limit = None if before is None else _prefix(output, before)
    old = [key for key in keys if limit is None or key < limit]
    store.delete(key for key in old if key.endswith(f"/{MARKER}"))
    store.delete(key for key in old if not key.endswith(f"/{MARKER}"))


def _prefix(output: str, step: int) -> str:
    return f"{output}/checkpoints/step-{step:08d}"


def _fetch(store: Store, prefix: str, record: Checkpoint, scratch: Path) -> Path:
    root = f"{prefix}/attempt={record.attempt}"
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
