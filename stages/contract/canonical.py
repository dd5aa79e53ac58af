"""Canonical JSON and the digests made of it: the same value gives the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_MODULUS = 1 << 256
_WHOLE_FILE_BYTES = 16 << 20
_END_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no white space; NaN is refused, since JSON has none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_identity(folder: Path) -> list[list[Any]]:
    """[name, size, mark] of each of a folder's files: its SHA-256, or for a large one that of its ends.

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
        head = file.read(_END_BYTES)
        file.seek(size - _END_BYTES)
        return digest([head.hex(), file.read().hex()])


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return sha256(canonical_json(value))


def content_id(*parts: Any) -> str:
    """A row's id: the first 16 hex digits of the digest of what makes it this row."""
    return digest(list(parts))[:16]


def rows_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """A digest of a multiset of rows: the sum of each row's SHA-256 modulo 2^256, as 64 hex digits.

    Sums of chunks add up to the sum of the whole (see `add_digests`), so the digest of a table does not
    depend on how many shards and chunks wrote it. It guards against accidents; every file has its own SHA-256
    besides.
    """
    total = 0
    for row in rows:
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=repr)
        total += int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), "big")
    return f"{total % _MODULUS:064x}"


def add_digests(digests: Iterable[str]) -> str:
    """The `rows_digest` of a union, out of its parts' digests."""
    return f"{sum(int(each, 16) for each in digests) % _MODULUS:064x}"
