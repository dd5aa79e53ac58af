"""The few operations that a store must offer; everything else is built on them."""

from __future__ import annotations

import abc
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stages.contract.errors import ExitCode, StageError


class Entry(NamedTuple):
    """One object: its key relative to the store's root, and its size in bytes."""

    key: str
    size: int


class Store(abc.ABC):
    """Objects by key. A key is a relative POSIX path; an object appears whole or not at all.

    Every method raises StageError with code STORE when the store cannot be reached or is full, and
    with BAD_SETTINGS when credentials, bucket or permissions are wrong.
    """

    uri: str

    @abc.abstractmethod
    def get_or_none(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""

    @abc.abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Writes an object, replacing what was there."""

    @abc.abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes an object where there is none; False if another writer was first (S3: If-None-Match: *)."""

    @abc.abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Uploads a file of any size."""

    @abc.abstractmethod
    def get_file(self, key: str, path: Path) -> None:
        """Downloads an object to a new file; a missing object is a StageError (BAD_DATA)."""

    @abc.abstractmethod
    def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""

    @abc.abstractmethod
    def version(self, key: str) -> str | None:
        """A text that changes when the object's bytes do (S3: its ETag), or None where there is none."""

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[Entry]:
        """Every object whose key starts with `prefix`, in key order."""

    @abc.abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; those that are not there do not matter."""

    def local_path(self, key: str) -> Path | None:
        """The path of an object or folder where the store is local: it need not be copied to be read."""
        return None

    def hasty(self) -> Store:
        """The same store for what is a courtesy (progress, logs): it gives up after seconds."""
        return self

    def get(self, key: str) -> bytes:
        """The object's bytes; a missing object is a StageError (BAD_DATA)."""
        data = self.get_or_none(key)
        if data is None:
            raise missing(self, key)
        return data

    def get_json(self, key: str) -> Any | None:
        """The object as JSON, or None where there is none."""
        data = self.get_or_none(key)
        if data is None:
            return None
        try:
            return json.loads(data)
        except ValueError as error:
            raise StageError(f"not JSON: {error}", code=ExitCode.BAD_DATA, where=f"{self.uri}/{key}") from None


def missing(store: Store, key: str) -> StageError:
    return StageError(
        "there is no such object",
        code=ExitCode.BAD_DATA,
        where=f"{store.uri}/{key}",
        hint="an artifact was removed by hand? montessori rerun NODE makes it again",
    )
