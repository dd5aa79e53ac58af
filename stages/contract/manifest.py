"""Manifests: what makes bytes in a store an artifact.

Below `artifacts/STAGE/FINGERPRINT/`:

    layout.json                                      how the rows are split: fixed by whoever starts first
    shard-00007/attempt=UID/chunk-00002.rows.parquet data, before any manifest
    shard-00007/chunk-00002.json                     a chunk is committed: conditional PUT
    shard-00007/manifest.json                        the shard is published: conditional PUT
    manifest.json                                    the artifact is complete: conditional PUT

Two processes with the same shard write under different attempts, and the first manifest wins: the other's
data are orphans that `montessori gc` removes. Nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.contract.canonical import add_digests, canonical_json, digest
from stages.contract.errors import bad_data
from stages.contract.ledger import Ledger
from stages.contract.store import Store

ROWS = "rows"
M = TypeVar("M", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Frozen):
    """One object of an artifact. A Parquet file names its table, its rows and their `rows_digest`; a folder's
    file has none."""

    key: str  # relative to the artifact
    name: str  # the file's name inside its table or folder
    size: int
    sha256: str
    table: str | None = None
    rows: int = 0
    digest: str | None = None


class Layout(_Frozen):
    """How rows are split. `chunk_rows` is the number of input rows of one chunk."""

    shards: int
    chunk_rows: int


class Chunk(_Frozen):
    """Rows [start, stop) of the stage's input are done."""

    start: int
    stop: int
    files: tuple[File, ...]
    ledger: Ledger = Ledger()
    figures: dict[str, Any] = {}


class ShardManifest(_Frozen):
    """A published shard. `figures` are the stage's own numbers (losses, counts by reason, an audit)."""

    shard: int
    attempt: int
    files: tuple[File, ...]
    ledger: Ledger
    figures: dict[str, Any] = {}
    chunk_figures: tuple[dict[str, Any], ...] = ()


class ShardEntry(_Frozen):
    shard: int
    key: str
    sha256: str


class Manifest(_Frozen):
    """A complete artifact. `digest` is its content: equal rows and files give equal digests, however they
    were split."""

    stage: str
    fingerprint: str
    digest: str
    shards: tuple[ShardEntry, ...]
    tables: dict[str, int]  # rows by table
    ledger: Ledger
    figures: dict[str, Any] = {}  # of an unsharded stage
    run: str
    node: str
    settings: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    finished: str


def shard_prefix(output: str, shard: int) -> str:
    return f"{output}/shard-{shard:05d}"


def shard_key(output: str, shard: int) -> str:
    return f"{shard_prefix(output, shard)}/manifest.json"


def chunk_key(output: str, shard: int, chunk: int) -> str:
    return f"{shard_prefix(output, shard)}/chunk-{chunk:05d}.json"


def manifest_key(output: str) -> str:
    return f"{output}/manifest.json"


def fix_layout(store: Store, output: str, wanted: Layout) -> Layout:
    """The artifact's layout: `wanted` if nobody started this artifact before, else what its first task chose."""
    key = f"{output}/layout.json"
    while True:
        data = store.get_or_none(key)
        if data is not None:
            return decode(Layout, data, f"{store.uri}/{key}")
        if store.put_if_absent(key, wanted.model_dump_json().encode()):
            return wanted


def read_manifest(store: Store, output: str) -> Manifest | None:
    key = manifest_key(output)
    data = store.get_or_none(key)
    return None if data is None else decode(Manifest, data, f"{store.uri}/{key}")


def read_shard(store: Store, output: str, shard: int) -> ShardManifest | None:
    key = shard_key(output, shard)
    data = store.get_or_none(key)
    return None if data is None else decode(ShardManifest, data, f"{store.uri}/{key}")


def published_shards(store: Store, output: str) -> set[int]:
    """The shards of an artifact that are published, by one listing."""
    found = set()
    for key, _ in store.list(f"{output}/shard-"):
        folder, _, name = key.removeprefix(f"{output}/").partition("/")
        if name == "manifest.json":
            found.add(int(folder.removeprefix("shard-")))
    return found


def content_digest(files: Iterable[File]) -> str:
    """The digest of an artifact's content: by table the digest of its rows, by folder file its SHA-256."""
    tables: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    for file in files:
        if file.table is not None and file.digest is not None:
            tables.setdefault(file.table, []).append(file.digest)
        else:
            others[file.name] = file.sha256
    return digest({"tables": {name: add_digests(parts) for name, parts in tables.items()}, "files": others})


def intact(store: Store, output: str, manifest: Manifest) -> bool:
    """Whether every object that a complete artifact lists is there with its size.

    Its bytes are checked on reading.
    """
    return not _damaged_shards(store, output, [entry.shard for entry in manifest.shards])


def unpublish_damaged(store: Store, output: str) -> None:
    """Takes back the manifests of an artifact, and of those of its shards, that list objects which are not there.

    The shards are then made again, out of the chunks that are still whole.
    """
    damaged = _damaged_shards(store, output, sorted(published_shards(store, output)))
    store.delete([manifest_key(output)])
    store.delete([shard_key(output, shard) for shard in damaged])


def _damaged_shards(store: Store, output: str, shards: Iterable[int]) -> list[int]:
    """Shards without a manifest, or whose manifest lists an object that is missing or of another size."""
    sizes = {entry.key: entry.size for entry in store.list(f"{output}/")}
    found = []
    for number in shards:
        shard = read_shard(store, output, number) if shard_key(output, number) in sizes else None
        if shard is None or any(sizes.get(f"{output}/{file.key}") != file.size for file in shard.files):
            found.append(number)
    return found


def encode(model: BaseModel) -> bytes:
    return canonical_json(model.model_dump(mode="json"))


def decode(model: type[M], data: bytes, where: str) -> M:
    """Reads what `encode` wrote; anything else is a StageError (BAD_DATA)."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise bad_data(
            f"not a readable {model.__name__} record: {error.errors()[0]['msg']}",
            where=where,
            hint="montessori rerun NODE makes the artifact again",
        ) from None
