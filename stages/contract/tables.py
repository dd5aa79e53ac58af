"""Rows as Parquet (zstd) with a declared schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.contract.errors import ExitCode, StageError


def make_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema; a row without a column, or with another, is our own bug."""
    listed = list(rows)
    names = set(schema.names)
    for row in listed:
        assert set(row) == names, f"row has {sorted(set(row) ^ names)} against its schema"
    return pa.Table.from_pylist([dict(row) for row in listed], schema=schema)


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def read_parquet(source: Path | pa.BufferReader, columns: Sequence[str] | None = None, where: str = "") -> pa.Table:
    """Reads one Parquet file, or some columns of it; a damaged one is a StageError (BAD_DATA) that says `where`."""
    try:
        # A file of a chunk is small: threads and a dataset of its own would cost more than reading it.
        with pq.ParquetFile(source) as file:
            rows = file.read(list(columns) if columns is not None else None, use_threads=False)
        return rows.select(list(columns)) if columns is not None else rows
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(
            f"not a readable Parquet file: {error}", code=ExitCode.BAD_DATA, where=where or str(source)
        ) from None
