"""What a recipe names from outside the store: models, and files of seeds and references."""

from __future__ import annotations

import tempfile
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

from stages.contract.canonical import digest, sha256_file
from stages.contract.errors import bad_settings
from stages.contract.store import Store, open_store
from stages.models.settings import BUILTIN, BUILTIN_DISTRIBUTIONS, ModelSource

_WHOLE_FILE_BYTES = 16 << 20
_BUILTIN_PACKAGE = {f"{BUILTIN}{name}": package for name, package in BUILTIN_DISTRIBUTIONS.items()}


def model_digest(source: ModelSource) -> str:
    """A digest of what a model source names: a package's version, a hub id with revision, or a folder's content."""
    if source.model in _BUILTIN_PACKAGE:
        package = _BUILTIN_PACKAGE[source.model]
        try:
            identity: Any = f"{package}=={metadata.version(package)}"
        except metadata.PackageNotFoundError:
            identity = package
    elif is_local_model(source.model):
        identity = _folder_identity(Path(source.model).expanduser())
    else:
        identity = [source.model, source.revision]
    return digest([identity, list(source.drop_layers)])


def is_local_model(model: str) -> bool:
    """Whether a model's name is a folder: it exists, or it can be nothing else (a hub id has one slash)."""
    return not model.startswith("builtin:") and (
        Path(model).expanduser().exists() or model.startswith(("/", "./", "../", "~")) or model.count("/") > 1
    )


def check_model(source: ModelSource, where: str) -> None:
    """Refuses a model that cannot exist, before anything runs. A hub id is only looked up where it is used."""
    if source.model.startswith("builtin:"):
        if source.model not in _BUILTIN_PACKAGE:
            raise bad_settings(
                f"there is no built-in model {source.model!r}",
                where=where,
                hint=f"there is {', '.join(_BUILTIN_PACKAGE)}",
            )
    elif is_local_model(source.model):
        folder = Path(source.model).expanduser()
        if not (folder / "config.json").is_file():
            raise bad_settings(
                f"{folder} is not a model folder: it has no config.json",
                where=where,
                hint="give a Hugging Face folder, a hub id, or builtin:smollm2",
            )
    elif "/" not in source.model:
        raise bad_settings(
            f"there is no model {source.model!r}",
            where=where,
            hint="give a folder, a hub id such as org/name, or builtin:smollm2",
        )


def _folder_identity(folder: Path) -> list[list[Any]]:
    """Names and sizes of a folder's files with the SHA-256 of the small ones.

    Weights are told apart by size and the bytes of their first and last megabyte: hashing 140 GB before a plan is no
    help.
    """
    found: list[list[Any]] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        size = path.stat().st_size
        mark = sha256_file(path) if size <= _WHOLE_FILE_BYTES else _ends(path, size)
        found.append([path.relative_to(folder).as_posix(), size, mark])
    return found


def _ends(path: Path, size: int) -> str:
    with path.open("rb") as file:
        head = file.read(1 << 20)
        file.seek(size - (1 << 20))
        return digest([head.hex(), file.read().hex()])


def _remote_digest(uri: str, where: str) -> str:
    """SHA-256 of an object: rows that were corrected in place are other rows."""
    folder, _, name = uri.rpartition("/")
    store = open_store(folder)
    if store.size(name) is None:
        raise bad_settings(f"there is no object {uri}", where=where)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "rows"
        store.get_file(name, copy)
        return sha256_file(copy)


def settle_source(uri: str, store: Store | None, where: str) -> dict[str, str]:
    """What a recipe's source of rows stands for on any machine: its URI and the SHA-256 of its content.

    A local file becomes a `store:` URI and is copied into the store under its SHA-256, so that a pod can read it too;
    with no store (a plan) nothing is copied. Sources that are not on this machine stay as they are.
    """
    if uri.startswith("builtin:"):
        path = Path(str(files("stages.data"))) / f"{uri.removeprefix('builtin:')}.jsonl"
        if not path.is_file():
            raise bad_settings(
                f"there is no built-in data {uri!r}", where=where, hint="builtin:seeds, builtin:reference"
            )
        return {"uri": uri, "digest": sha256_file(path)}
    if uri.startswith("s3://"):
        return {"uri": uri, "digest": _remote_digest(uri, where)}
    if uri.startswith(("store:", "hf:")):
        return {"uri": uri}
    path = Path(uri.removeprefix("file://")).expanduser()
    if not path.is_file():
        raise bad_settings(
            f"there is no file {path}",
            where=where,
            hint="give a .jsonl or .parquet file, s3://…, hf:org/name or builtin:…",
        )
    mark = sha256_file(path)
    key = f"inputs/{mark}/{path.name}"
    if store is not None and store.size(key) != path.stat().st_size:
        store.put_file(key, path)
    return {"uri": f"store:{key}", "digest": mark}
