"""Rows as Parquet (zstd) with a declared schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def read_parquet(path: Path) -> pa.Table:
    """Reads one Parquet file; a damaged one is a StageError (BAD_DATA)."""
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(f"not a readable Parquet file: {error}", code=ExitCode.BAD_DATA, where=str(path)) from None
