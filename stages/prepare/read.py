"""Raw rows of a source, each with the place it stands at; what cannot be read is named, not guessed.

A row that is broken by itself (UTF-8, JSON) comes out as `BadRow`, and the caller decides whether it refuses
the source or goes on; a source that is broken as a whole raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.contract.canonical import sha256_file
from stages.contract.errors import ExitCode, StageError, bad_data, bad_settings
from stages.contract.store import Store, open_store
from stages.prepare.settings import BUILTIN, HUB, S3, STORE, Source, bundled_path

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RawRow:
    """One object as it stands in the source; `line` counts from 1 (a file's line, or a table's row)."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that is no object, and why."""

    line: int
    reason: str
    detail: str


def raw_rows(source: Source, store: Store, scratch: Path, more: Sequence[str] = ()) -> Iterator[RawRow | BadRow]:
    """The source's rows, at most `source.limit` of them. `store` is the run's own, for `store:` URIs. Of a table the
    columns that `source.fields` name are read, and `more`.

    Raises:
        StageError: BAD_SETTINGS where there is no such source, BAD_DATA for content of another digest or a
            damaged Parquet file, STORE where a server does not answer.
    """
    if source.uri.startswith(HUB):
        rows = _hub_rows(source, more)
    else:
        path = local_file(source, store, scratch)
        _check_digest(source, path)
        rows = _parquet_rows(source, path, more) if path.suffix == ".parquet" else _json_lines(path)
    return islice(rows, source.limit)


def local_file(source: Source, store: Store, scratch: Path) -> Path:
    """The source as a file of this machine, downloaded into `scratch` if need be."""
    uri = source.uri
    if uri.startswith(BUILTIN):
        return bundled_path(uri)
    if uri.startswith(STORE):
        return _downloaded(store, uri.removeprefix(STORE), source, scratch)
    if uri.startswith(S3):
        folder, _, name = uri.rpartition("/")
        return _downloaded(open_store(folder), name, source, scratch)
    path = Path(uri).expanduser()
    if not path.is_file():
        raise bad_settings("there is no such file", where=uri, hint="a relative path is relative to where you are")
    return path


def _downloaded(store: Store, key: str, source: Source, scratch: Path) -> Path:
    if store.size(key) is None:
        raise bad_settings("there is no such object", where=source.shown, hint=f"looked for it at {store.uri}/{key}")
    here = store.local_path(key)
    if here is not None:
        return here
    path = scratch / PurePosixPath(key).name
    store.get_file(key, path)
    return path


def _check_digest(source: Source, path: Path) -> None:
    if source.digest is None:
        return
    found = sha256_file(path)
    if found != source.digest:
        raise bad_data(
            f"the content has SHA-256 {found[:12]}… and the recipe says {source.digest[:12]}…",
            where=source.shown,
            hint="the file was changed since: take its digest out, or bring the file back",
        )


def _json_lines(path: Path) -> Iterator[RawRow | BadRow]:
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            start, offset = offset, offset + len(raw)
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line.strip():
                yield _json_row(number, line, start + len(raw) - len(line))


def _json_row(number: int, line: bytes, start: int) -> RawRow | BadRow:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        place = start + error.start
        return BadRow(number, "not_utf8", f"byte {line[error.start]:#04x} at offset {place} is not UTF-8")
    try:
        values = json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        return BadRow(number, "not_json", f"not JSON: {error.msg} at column {error.colno}")
    except RecursionError:
        return BadRow(number, "not_json", "not usable JSON: nested too deeply")
    if not isinstance(values, dict):
        return BadRow(number, "not_an_object", f"a JSON {kind(values)}, not an object with fields")
    return RawRow(number, values)


def _parquet_rows(source: Source, path: Path, more: Sequence[str]) -> Iterator[RawRow | BadRow]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            wanted = [name for name in (*_wanted(source), *more) if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=wanted, batch_size=4096):
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(number, values)
    except (pa.ArrowInvalid, OSError) as error:
        raise bad_data(f"not a readable Parquet file: {error}", where=source.shown) from None
    except UnicodeDecodeError as error:
        raise bad_data(f"text that is not UTF-8 after row {number}: {error.reason}", where=source.shown) from None


def _hub_rows(source: Source, more: Sequence[str]) -> Iterator[RawRow | BadRow]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name = source.uri.removeprefix(HUB)
    try:
        dataset = load_dataset(name, source.config, split=source.split, revision=source.revision)
    except DatasetNotFoundError as error:
        raise bad_settings(
            f"the hub has no such dataset, or it is private: {_first_line(error)}",
            where=source.shown,
            hint="check the name; a private or gated one needs HF_TOKEN",
        ) from None
    except ValueError as error:  # an unknown configuration or split: the library names those that there are
        raise bad_settings(_first_line(error), where=source.shown) from None
    except RuntimeError as error:  # a data set that is a script, which the library runs no longer
        raise bad_settings(
            _first_line(error), where=source.shown, hint="download the rows as JSON Lines or Parquet and name the file"
        ) from None
    except (ConnectionError, OSError) as error:
        raise StageError(
            f"the hub does not answer: {_first_line(error)}",
            code=ExitCode.STORE,
            where=source.shown,
            hint="check the network (HF_ENDPOINT names another hub), or download the rows and name the file",
        ) from None
    wanted = [column for column in (*_wanted(source), *more) if column in dataset.column_names]
    for number, values in enumerate(dataset.select_columns(wanted), start=1):
        yield RawRow(number, dict(values))


def _wanted(source: Source) -> list[str]:
    fields = source.fields
    return [name for name in (fields.instruction, fields.input, fields.response) if name is not None]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def kind(value: Any) -> str:
    """What JSON calls a value's type."""
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", type(None): "null"}
    return names.get(type(value), type(value).__name__)
