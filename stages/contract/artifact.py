"""Reading a published artifact: every byte is checked against its manifest before it is used."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from stages.contract.canonical import sha256, sha256_file
from stages.contract.errors import ExitCode, StageError
from stages.contract.manifest import (
    ROWS,
    File,
    Manifest,
    ShardManifest,
    content_digest,
    decode,
    manifest_key,
    read_manifest,
)
from stages.contract.store import Store
from stages.contract.tables import read_parquet

_MISSING = "a file of the artifact is missing"
_CHANGED = "the file's bytes are not those that were published"
_READERS = 8
_SMALL = 16 << 20  # bytes of a file that is read at once


class Artifact:
    """One complete artifact in a store.

    Raises:
        StageError: BAD_DATA when the artifact is not complete, or when a file differs from its manifest.
    """

    def __init__(self, store: Store, key: str, expected_digest: str | None = None) -> None:
        self.store = store
        self.key = key
        manifest = read_manifest(store, key)
        if manifest is None:
            raise self._broken("the artifact is not complete", manifest_key(key))
        if expected_digest is not None and manifest.digest != expected_digest:
            raise self._broken("the artifact's content is not what the task was written for", manifest_key(key))
        self.manifest: Manifest = manifest

    def shards(self) -> Iterator[ShardManifest]:
        """The shards' manifests in order, each checked against the artifact's."""
        for entry in self.manifest.shards:
            data = self.store.get(f"{self.key}/{entry.key}")
            if sha256(data) != entry.sha256:
                raise self._broken("the shard's manifest was changed after publication", f"{self.key}/{entry.key}")
            yield decode(ShardManifest, data, f"{self.store.uri}/{self.key}/{entry.key}")

    def files(self) -> tuple[File, ...]:
        """Every file in shard and chunk order; together they are what the digest was made of."""
        files = tuple(file for shard in self.shards() for file in shard.files)
        if content_digest(files) != self.manifest.digest:
            raise self._broken("the manifest was changed after publication", manifest_key(self.key))
        return files

    def table(self, name: str = ROWS, columns: Sequence[str] | None = None, rows: range | None = None) -> pa.Table:
        """All rows of one table, in shard and chunk order; with `columns` or `rows` (places) only those are read.

        A file without any of these rows is not even fetched.
        """
        files = [each for each in self.files() if each.table == name]
        if not files:
            raise self._broken(f"the artifact has no table {name!r}", self.key)
        parts = [(each, None) for each in files] if rows is None else _parts(files, rows)
        with tempfile.TemporaryDirectory(prefix="montessori-") as scratch, ThreadPoolExecutor(_READERS) as readers:

            def read(numbered: tuple[int, tuple[File, range | None]]) -> pa.Table:
                number, (file, some) = numbered
                if file.size <= _SMALL:
                    return read_parquet(pa.BufferReader(self._bytes(file)), columns, f"{self.key}/{file.key}", some)
                path = self._fetched(file, Path(scratch, f"{number}.parquet"))
                return read_parquet(path, columns, str(path), some)

            # Thousands of small files: what a reader waits for is the store.
            return pa.concat_tables(readers.map(read, enumerate(parts)))

    def folder(self, cache: Path) -> Path:
        """The artifact's files as a local folder, checked; read in place where the store is local.

        A downloaded copy is kept in `cache` under the artifact's digest: its rename into place is what makes
        it count. A file of that copy that went bad since is downloaded again.
        """
        files = [file for file in self.files() if file.table is None]
        if not files:
            raise self._broken("the artifact holds no folder", self.key)
        here = self.store.local_path(f"{self.key}/{files[0].key.removesuffix(files[0].name).rstrip('/')}")
        if here is not None:
            for file in files:
                self._check(file, here / file.name)
            return here
        target = cache / "artifacts" / self.manifest.digest[:32]
        if target.is_dir():
            for file in files:
                if not _intact(file, target / file.name):
                    self._replace(file, target)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        try:
            for file in files:
                path = partial / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                self.store.get_file(f"{self.key}/{file.key}", path)
                self._check(file, path)
            try:
                os.rename(partial, target)
            except OSError:  # another process was first: its copy was checked as ours was
                assert target.is_dir()
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return target

    def _bytes(self, file: File) -> bytes:
        where = f"{self.key}/{file.key}"
        data = self.store.get_or_none(where)
        if data is None:
            raise self._broken(_MISSING, where)
        if len(data) != file.size or sha256(data) != file.sha256:
            raise self._broken(_CHANGED, where)
        return data

    def _fetched(self, file: File, scratch: Path) -> Path:
        path = self.store.local_path(f"{self.key}/{file.key}")
        if path is None:
            path = scratch
            self.store.get_file(f"{self.key}/{file.key}", path)
        self._check(file, path)
        return path

    def _replace(self, file: File, folder: Path) -> None:
        """Downloads one file over a broken copy, by a rename: another process may be reading the folder."""
        target = folder / file.name
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
            path = Path(partial, "file")
            self.store.get_file(f"{self.key}/{file.key}", path)
            self._check(file, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

    def _check(self, file: File, path: Path) -> None:
        where = f"{self.key}/{file.key}"
        if not path.is_file():
            raise self._broken(_MISSING, where)
        if not _intact(file, path):
            raise self._broken(_CHANGED, where)

    def _broken(self, message: str, key: str) -> StageError:
        return StageError(
            message,
            code=ExitCode.BAD_DATA,
            where=f"{self.store.uri}/{key}",
            hint="montessori rerun NODE makes the artifact again",
        )


def _parts(files: Sequence[File], rows: range) -> list[tuple[File, range | None]]:
    """The files that have some of the rows, and their places in them; one file at least, for its schema."""
    parts: list[tuple[File, range | None]] = []
    start = 0
    for file in files:
        some = range(max(rows.start - start, 0), min(rows.stop - start, file.rows))
        if some:
            parts.append((file, some))
        start += file.rows
    return parts or [(files[0], range(0))]


def _intact(file: File, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_file(path) == file.sha256
