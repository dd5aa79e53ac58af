"""What a recipe names from outside the store: models, and files of seeds and references."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flow.recipe import UNREAD, RecipeBase
from stages.contract.canonical import canonical_json, digest, folder_identity, sha256_file
from stages.contract.errors import bad_settings
from stages.contract.fingerprint import version_of
from stages.contract.store import Store, open_store
from stages.models.settings import BUILTIN, BUILTIN_DISTRIBUTIONS, IN_STORE, ModelSource, identity_key, stored_identity
from stages.prepare.settings import Source, bundled_path

Change = Callable[[str, "ModelSource | Source"], "ModelSource | Source"]
_ELSEWHERE = ("builtin:", "store:", "s3://", "hf:")
_read: dict[tuple[str, str], str] = {}  # SHA-256 of objects by URI and version
_BUILTIN_PACKAGE = {f"{BUILTIN}{name}": package for name, package in BUILTIN_DISTRIBUTIONS.items()}


def model_digest(source: ModelSource, store: Store) -> str:
    """A digest of what a model source names: a package's version, a hub id with revision, or a folder's content.

    A folder that was copied into the store (`store:…`) has the digest that it had on the machine it came from.
    """
    if source.model in _BUILTIN_PACKAGE:
        package = _BUILTIN_PACKAGE[source.model]
        version = version_of(package)
        identity: Any = f"{package}=={version}" if version else package
    elif source.model.startswith(IN_STORE):
        identity = stored_identity(store, source.model)
    elif is_local_model(source.model):
        identity = folder_identity(Path(source.model).expanduser())
    else:
        identity = [source.model, source.revision]
    return digest([identity, list(source.drop_layers)])


def is_local_model(model: str) -> bool:
    """Whether a model's name is a folder: it exists, or it can be nothing else (a hub id has one slash)."""
    return not model.startswith((BUILTIN, IN_STORE)) and (
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
    elif "/" not in source.model and not source.model.startswith(IN_STORE):
        raise bad_settings(
            f"there is no model {source.model!r}",
            where=where,
            hint="give a folder, a hub id such as org/name, or builtin:smollm2",
        )


def upload_model(source: ModelSource, store: Store) -> ModelSource:
    """The same model where a pod can read it: a local folder is copied into the store, all else stays as it is.

    It lies under the digest of its content, so that it is copied once.
    """
    if not is_local_model(source.model):
        return source
    folder = Path(source.model).expanduser().resolve()
    identity = folder_identity(folder)
    model = f"{IN_STORE}inputs/models/{digest(identity)[:32]}/{_folder_name(folder)}"
    key = identity_key(model)
    if store.get_or_none(key) is None:
        present = {entry.key: entry.size for entry in store.list(f"{model.removeprefix(IN_STORE)}/")}
        for name, size, _ in identity:
            target = f"{model.removeprefix(IN_STORE)}/{name}"
            if present.get(target) != size:
                store.put_file(target, folder / name)
        store.put(key, canonical_json(identity))  # last: what has it is whole
    return source.model_copy(update={"model": model})


def _folder_name(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-.") or "model"


def without_places(recipe: RecipeBase) -> RecipeBase:
    """The same for a recipe with a model's folder and for one with its copy in a store: both by the folder's name."""

    def named(key: str, source: ModelSource | Source) -> ModelSource | Source:
        if isinstance(source, ModelSource) and (source.model.startswith(IN_STORE) or is_local_model(source.model)):
            folder = Path(source.model.removeprefix(IN_STORE)).expanduser().resolve()
            return source.model_copy(update={"model": _folder_name(folder)})
        return source

    found: RecipeBase = replace_sources(recipe, named)
    return found


def _remote_digest(uri: str, where: str) -> str:
    """SHA-256 of an object: rows that were corrected in place are other rows. An unchanged object is read once."""
    folder, _, name = uri.rpartition("/")
    store = open_store(folder)
    version = store.version(name)
    if version is None:
        raise bad_settings(f"there is no object {uri}", where=where)
    if (uri, version) not in _read:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "rows"
            store.get_file(name, copy)
            _read[uri, version] = sha256_file(copy)
    return _read[uri, version]


def sources_of(value: Any, key: str = "") -> Iterator[tuple[str, ModelSource | Source]]:
    """Every model and every source of rows of a recipe with its dotted key, wherever a section has one."""
    if isinstance(value, ModelSource | Source):
        yield key, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from sources_of(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from sources_of(each, f"{key}.{name}")
    elif isinstance(value, tuple | list):
        for number, each in enumerate(value):
            yield from sources_of(each, f"{key}.{number}")


def replace_sources(value: Any, change: Change, key: str = "") -> Any:
    """A recipe, or a part of it, with `change(key, source)` in the place of each of its sources."""
    if isinstance(value, ModelSource | Source):
        return change(key, value)
    if isinstance(value, BaseModel):
        old = {name: getattr(value, name) for name in type(value).model_fields}
        new = {name: replace_sources(each, change, f"{key}.{name}" if key else name) for name, each in old.items()}
        changed = {name: each for name, each in new.items() if each is not old[name]}
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, Mapping):
        found: Any = {name: replace_sources(each, change, f"{key}.{name}") for name, each in value.items()}
        return found if any(found[name] is not value[name] for name in found) else value
    if isinstance(value, tuple | list):
        found = type(value)(replace_sources(each, change, f"{key}.{number}") for number, each in enumerate(value))
        return found if any(new is not old for new, old in zip(found, value, strict=True)) else value
    return value


def local_sources(recipe: RecipeBase) -> list[str]:
    """The keys under which a recipe names folders and files of this machine."""
    return [key for key, source in sources_of(recipe) if is_local(source)]


def is_local(source: ModelSource | Source) -> bool:
    if isinstance(source, ModelSource):
        return is_local_model(source.model)
    return not source.uri.startswith(_ELSEWHERE)


def check_models(recipe: RecipeBase, where: str) -> None:
    """Refuses a recipe with a model that cannot exist (see `check_model`)."""
    for key, source in sources_of(recipe):
        if isinstance(source, ModelSource):
            check_model(source, f"{where}: {key}.model")


def settle_recipe(recipe: RecipeBase, store: Store | None, where: str) -> RecipeBase:
    """A recipe whose sources of rows mean the same on any machine (see `settle_source`).

    A digest that the recipe itself names stays: the stage refuses other bytes. What the method does not read is left as
    it is, so that it is still a default when the recipe comes back from the store.
    """
    unread = UNREAD[recipe.method]

    def settle(key: str, source: ModelSource | Source) -> ModelSource | Source:
        if isinstance(source, ModelSource) or (source.digest and source.uri.startswith("s3://")):
            return source
        if key.partition(".")[0] in unread:
            return source
        found = settle_source(source.uri, store, f"{where}: {key}.uri")
        return source.model_copy(update=found | ({"digest": source.digest} if source.digest else {}))

    settled: RecipeBase = replace_sources(recipe, settle)
    return settled


def upload_recipe(recipe: RecipeBase, store: Store, where: str) -> RecipeBase:
    """A recipe whose files and model folders pods can read: those of this machine are copied into the store."""

    def upload(key: str, source: ModelSource | Source) -> ModelSource | Source:
        if not is_local(source):
            return source
        if isinstance(source, ModelSource):
            return upload_model(source, store)
        found = settle_source(source.uri, store, f"{where}: {key}.uri")
        return source.model_copy(update=found | ({"digest": source.digest} if source.digest else {}))

    uploaded: RecipeBase = replace_sources(recipe, upload)
    return uploaded


def files_here(recipe: RecipeBase, settled: RecipeBase) -> dict[str, Path]:
    """The files of this machine that a recipe names, by the URI that each has once the recipe is settled.

    A plan settles without copying, so what it counts need not be in the store.
    """
    found = {}
    for (_, source), (_, known) in zip(sources_of(recipe), sources_of(settled), strict=True):
        if isinstance(source, Source) and isinstance(known, Source) and is_local(source):
            found[known.uri] = _local_path(source.uri)
    return found


def rows_file(source: Source, files: Mapping[str, Path]) -> Path | None:
    """The file of a source on this machine, if it is here; `files` as in `Graph`."""
    return bundled_path(source.uri) if source.uri.startswith(BUILTIN) else files.get(source.uri)


def count_rows(source: Source, files: Mapping[str, Path]) -> int | None:
    """Rows of a source, as far as this machine can tell: those of a file that is here, or the source's own limit."""
    path = rows_file(source, files)
    rows = None if path is None else _rows_in(path)
    return source.limit if rows is None else min(rows, source.limit or rows)


def _rows_in(path: Path) -> int | None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(path).num_rows)
        except pa.ArrowInvalid:  # the stage that reads it says what is wrong
            return None
    with path.open("rb") as file:
        return sum(bool(line.strip()) for line in file)


def _local_path(uri: str) -> Path:
    return Path(uri.removeprefix("file://")).expanduser()


def settle_source(uri: str, store: Store | None, where: str) -> dict[str, str]:
    """What a recipe's source of rows stands for on any machine: its URI and the SHA-256 of its content.

    A local file becomes a `store:` URI and is copied into the store under its SHA-256, so that a pod can read it too;
    with no store (a plan) nothing is copied. Sources that are not on this machine stay as they are.
    """
    if uri.startswith("builtin:"):
        path = Path(str(files("stages.data"))) / f"{uri.removeprefix('builtin:')}.jsonl"
        if not path.is_file():
            raise bad_settings(
                f"there is no built-in data {uri!r}",
                where=where,
                hint="builtin:seeds, builtin:reference, builtin:turns",
            )
        return {"uri": uri, "digest": sha256_file(path)}
    if uri.startswith("s3://"):
        return {"uri": uri, "digest": _remote_digest(uri, where)}
    if uri.startswith(("store:", "hf:")):
        return {"uri": uri}
    path = _local_path(uri)
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
