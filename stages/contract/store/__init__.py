"""Where artifacts live: a folder (`file:///…`) or an S3 bucket (`s3://bucket/prefix`); one suite tests both."""

from __future__ import annotations

from pathlib import Path

from stages.contract.errors import bad_settings
from stages.contract.store.base import Entry, Store
from stages.contract.store.file import FileStore

__all__ = ["Entry", "FileStore", "Store", "open_store"]


def open_store(uri: str) -> Store:
    """Opens a store by URI: `file:///abs`, `file:relative`, a bare path, or `s3://bucket[/prefix]`.

    Raises:
        StageError: BAD_SETTINGS for another scheme or an S3 URI without a bucket.
    """
    if uri.startswith("s3://"):
        from stages.contract.store.s3 import S3Store  # boto3 takes 0.3 s to import: only where it is used

        return S3Store(uri)
    if uri.startswith("file:"):
        return FileStore(Path(uri.removeprefix("file://").removeprefix("file:")))
    if "://" in uri or uri.startswith("s3:"):
        raise bad_settings("unknown kind of store", where=uri, hint="use file:///folder or s3://bucket/prefix")
    return FileStore(Path(uri))
