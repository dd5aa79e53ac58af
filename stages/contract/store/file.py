"""A store in a local folder. Objects are files; what is half written has another name until it is whole."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.contract.store.base import Entry, Store, missing

_PARTIAL = ".partial-"


class FileStore(Store):
    """Objects below one folder, which is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.uri = f"file://{self.root}"

    def get_or_none(self, key: str) -> bytes | None:
        with self._clear_errors(key):
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def put(self, key: str, data: bytes) -> None:
        with self._partial(key) as (partial, target):
            _write(partial, data)
            partial.replace(target)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._partial(key) as (partial, target):
            _write(partial, data)
            try:
                os.link(partial, target)  # fails where a name exists: the file system's own If-None-Match
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise
                raise bad_settings(
                    "this file system has no hard links, which keep two writers apart",
                    where=self.uri,
                    hint="choose another store with --store",
                ) from None
            return True

    def put_file(self, key: str, path: Path) -> None:
        with self._partial(key) as (partial, target):
            shutil.copyfile(path, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(target)

    def get_file(self, key: str, path: Path) -> None:
        with self._clear_errors(key):
            try:
                shutil.copyfile(self._path(key), path)
            except (FileNotFoundError, IsADirectoryError):
                raise missing(self, key) from None

    def size(self, key: str) -> int | None:
        path = self._path(key)
        with self._clear_errors(key):
            return path.stat().st_size if path.is_file() else None

    def version(self, key: str) -> str | None:
        path = self._path(key)
        with self._clear_errors(key):
            if not path.is_file():
                return None
            status = path.stat()
            return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"

    def list(self, prefix: str) -> Iterator[Entry]:
        start = self._path(prefix) if prefix.endswith("/") or not prefix else self._path(prefix).parent
        found: list[Entry] = []
        with self._clear_errors(prefix):
            for folder, _, names in os.walk(start, onerror=_unless_gone):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self.root).as_posix()
                    if name.startswith(_PARTIAL) or not key.startswith(prefix):
                        continue
                    with suppress(FileNotFoundError):  # deleted since the folder was read
                        found.append(Entry(key, path.stat().st_size))
        yield from sorted(found)

    def delete(self, keys: Iterable[str]) -> None:
        folders: set[Path] = set()
        for key in keys:
            path = self._path(key)
            with self._clear_errors(key):
                path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folders, key=lambda each: -len(each.parts)):
            self._remove_empty(folder)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.root and self.root in folder.parents:
            try:
                folder.rmdir()
            except OSError:  # not empty, or another process removed it: either way nothing is left to do
                return
            folder = folder.parent

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        assert ".." not in parts and not key.startswith("/"), key
        return self.root.joinpath(*parts)

    @contextmanager
    def _partial(self, key: str) -> Iterator[tuple[Path, Path]]:
        target = self._path(key)
        partial = target.parent / f"{_PARTIAL}{uuid.uuid4().hex}"
        with self._clear_errors(key):
            _create(partial)
            try:
                yield partial, target
            finally:
                partial.unlink(missing_ok=True)

    @contextmanager
    def _clear_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"{self.uri}/{key}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StageError(
                    "the disk is full",
                    code=ExitCode.STORE,
                    where=where,
                    hint="free space; montessori gc helps",
                ) from None
            if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
                raise bad_settings("a file stands where a folder should be, or the reverse", where=where) from None
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise StageError(
                    "not allowed to read or write here",
                    code=ExitCode.BAD_SETTINGS,
                    where=where,
                    hint="choose another store with --store",
                ) from None
            raise StageError(f"the store cannot be used: {error.strerror}", code=ExitCode.STORE, where=where) from None


def _create(partial: Path) -> None:
    """Makes an empty file, whose presence keeps `delete` in other processes from removing its folder."""
    while True:
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.touch(exist_ok=False)
            return
        except FileNotFoundError:  # the folder was empty for a moment, and was removed in it
            continue
        except FileExistsError:  # so too, unless a file stands there
            if partial.parent.exists() and not partial.parent.is_dir():
                raise


def _unless_gone(error: OSError) -> None:
    """For os.walk, which ignores errors: a folder that may not be read is not an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a manifest that survives a power cut must not point at nothing
