"""Canonical JSON and the digests made of it: the same value gives the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_MODULUS = 1 << 256


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no white space; NaN is refused, since JSON has none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
