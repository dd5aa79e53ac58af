"""Committing what a shard has done, chunk by chunk, and publishing it when it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.contract.canonical import rows_digest, sha256_file
from stages.contract.finalise import finalise
from stages.contract.ledger import Meter, add_ledgers
from stages.contract.manifest import (
    Chunk as ChunkRecord,
)
from stages.contract.manifest import (
    File,
    Layout,
    ShardManifest,
    chunk_key,
    decode,
    encode,
    shard_key,
    shard_prefix,
)
from stages.contract.store import Store
from stages.contract.tables import write_parquet
from stages.contract.task import Task

_DIGESTED = 65_536  # rows at once


class ShardWriter:
    """Writes one shard of an artifact under its own attempt; commits by conditional PUT."""

    def __init__(
        self,
        store: Store,
        task: Task,
        shard: int,
        layout: Layout,
        attempt_id: str,
        meter: Meter,
        scratch: Path,
    ) -> None:
        self._store = store
        self._task = task
        self._shard = shard
        self._layout = layout
        self._attempt_id = attempt_id
        self._meter = meter
        self._scratch = scratch
        self._files: list[File] = []
        self._figures: dict[str, Any] = {}
        self._planned = 0

    @cached_property
    def _committed(self) -> dict[int, ChunkRecord]:
        prefix = shard_prefix(self._task.output, self._shard)
        entries = {entry.key: entry.size for entry in self._store.list(f"{prefix}/")}
        found: dict[int, ChunkRecord] = {}
        for key in entries:
            name = key.removeprefix(f"{prefix}/")
            if not name.startswith("chunk-"):
                continue
            record = decode(ChunkRecord, self._store.get(key), f"{self._store.uri}/{key}")
            if all(self._is_there(file, entries) for file in record.files):
                found[int(name.removeprefix("chunk-").removesuffix(".json"))] = record
            else:
                self._store.delete([key])  # its data were removed by hand: the chunk is done again
        return found

    def _is_there(self, file: File, entries: Mapping[str, int]) -> bool:
        key = f"{self._task.output}/{file.key}"
        # A listing takes several requests: a file may have been uploaded after its page was read.
        return entries.get(key) == file.size or self._store.size(key) == file.size

    def plan(self, chunks: int) -> None:
        """Says how many chunks the shard has: publishing fewer is a bug of the stage."""
        self._planned = chunks

    def committed(self) -> dict[int, ChunkRecord]:
        """The chunks of this shard that are committed, by number."""
        return self._committed

    def commit(
        self, number: int, start: int, stop: int, tables: Mapping[str, pa.Table], figures: Mapping[str, Any]
    ) -> None:
        with self._meter.phase("upload"):
            files = tuple(
                self._upload_table(name, f"chunk-{number:05d}.{name}.parquet", table) for name, table in tables.items()
            )
        record = ChunkRecord(start=start, stop=stop, files=files, ledger=self._meter.take(), figures=dict(figures))
        key = chunk_key(self._task.output, self._shard, number)
        if not self._store.put_if_absent(key, encode(record)):
            # another pod was first: its rows count
            record = decode(ChunkRecord, self._store.get(key), f"{self._store.uri}/{key}")
        self._committed[number] = record

    def add(self, tables: Mapping[str, pa.Table], folder: Path | None, figures: Mapping[str, Any]) -> None:
        with self._meter.phase("upload"):
            for name, table in tables.items():
                self._files.append(self._upload_table(name, f"{name}.parquet", table))
            for path in sorted(folder.rglob("*")) if folder else ():
                if path.is_file():
                    assert folder is not None
                    self._files.append(self._upload(path, path.relative_to(folder).as_posix()))
        self._figures.update(figures)

    def publish(self) -> None:
        """Publishes the shard, and the artifact with its last shard. Doing it twice changes nothing."""
        missing = [number for number in range(self._planned) if number not in self._committed]
        assert not missing, f"the stage returned before chunk {missing[0]} was committed"
        chunks = [self._committed[number] for number in sorted(self._committed)]
        manifest = ShardManifest(
            shard=self._shard,
            attempt=self._task.attempt,
            files=tuple([file for chunk in chunks for file in chunk.files] + self._files),
            ledger=add_ledgers([chunk.ledger for chunk in chunks] + [self._meter.take()]),
            figures=self._figures,
            chunk_figures=tuple(chunk.figures for chunk in chunks if chunk.figures),
        )
        self._store.put_if_absent(shard_key(self._task.output, self._shard), encode(manifest))
        finalise(self._store, self._task, self._layout)

    def _upload_table(self, table: str, name: str, rows: pa.Table) -> File:
        path = self._scratch / name
        write_parquet(rows, path)
        file = self._upload(path, name)
        path.unlink()
        # Some at a time: a million rows are many times as large as Python's.
        listed = (row for batch in rows.to_batches(max_chunksize=_DIGESTED) for row in batch.to_pylist())
        return file.model_copy(update={"table": table, "rows": rows.num_rows, "digest": rows_digest(listed)})

    def _upload(self, path: Path, name: str) -> File:
        key = f"shard-{self._shard:05d}/attempt={self._attempt_id}/{name}"
        assert all(key != file.key for file in self._files), f"{name} was published before"
        self._store.put_file(f"{self._task.output}/{key}", path)
        return File(key=key, name=name, size=path.stat().st_size, sha256=sha256_file(path))


class Chunk:
    """A part of a shard's rows: work on `rows`, then `commit` what came of them."""

    def __init__(self, writer: ShardWriter, number: int, start: int, stop: int, rows: pa.Table) -> None:
        self.number = number
        self.start = start
        self.stop = stop
        self.rows = rows
        self.committed = False
        self._writer = writer

    def commit(self, tables: Mapping[str, pa.Table], *, figures: Mapping[str, Any] | None = None) -> None:
        """Makes these tables the chunk's result, unless another process already committed this chunk."""
        self._writer.commit(self.number, self.start, self.stop, tables, figures or {})
        self.committed = True
