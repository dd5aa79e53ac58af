"""Rows as Parquet (zstd) with a declared schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.contract.errors import ExitCode, StageError

_GROUP_ROWS = 16_384  # of a group in a file: what can be read without the others


def make_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema; a row without a column, or with another, is our own bug."""
    listed = list(rows)
    names = set(schema.names)
    for row in listed:
        assert set(row) == names, f"row has {sorted(set(row) ^ names)} against its schema"
    return pa.Table.from_pylist([dict(row) for row in listed], schema=schema)


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=_GROUP_ROWS)


def read_parquet(
    source: Path | pa.BufferReader, columns: Sequence[str] | None = None, where: str = "", rows: range | None = None
) -> pa.Table:
    """Reads one Parquet file, or some columns or rows; a damaged one is a StageError (BAD_DATA) that says `where`."""
    try:
        # A file of a chunk is small: threads and a dataset of its own would cost more than reading it.
        with pq.ParquetFile(source) as file:
            names = list(columns) if columns is not None else None
            found = _some_rows(file, rows, names) if rows is not None else file.read(names, use_threads=False)
        return found.select(names) if names is not None else found
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(
            f"not a readable Parquet file: {error}", code=ExitCode.BAD_DATA, where=where or str(source)
        ) from None


def _some_rows(file: pq.ParquetFile, rows: range, columns: list[str] | None) -> pa.Table:
    """Groups of rows in which none of these is are not read."""
    groups: list[int] = []
    before, start = rows.start, 0
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        if start < rows.stop and rows.start < stop:
            before = before if groups else start
            groups.append(group)
        start = stop
    return file.read_row_groups(groups, columns, use_threads=False).slice(rows.start - before, len(rows))
