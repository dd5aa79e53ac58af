"""A store in an S3 bucket (AWS, MinIO, SeaweedFS, Ceph) through boto3.

Credentials, region and endpoint come from boto3's usual places (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, profiles, workload identity) and never from a task or a recipe. An unreachable server is
tried again with jitter for MONTESSORI_STORE_PATIENCE seconds (default 300): it costs time and nothing else.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

import boto3
import tenacity
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

from stages.contract.errors import bad_settings
from stages.contract.store.base import Entry, Store, missing
from stages.contract.store.faults import absent, code_of, faulty_keys, named, passing, strange

PATIENCE_VARIABLE = "MONTESSORI_STORE_PATIENCE"
HASTY_PATIENCE_S = 15.0
_CONFIG = Config(
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=16,
    retries={"mode": "standard", "total_max_attempts": 2},
    # Servers differ in the newer trailing checksums; our manifests carry a SHA-256 of every file.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=4)
T = TypeVar("T")


class S3Store(Store):
    """Objects below `s3://bucket/prefix`."""

    def __init__(self, uri: str) -> None:
        parsed = urlparse(uri)
        if not parsed.netloc:
            raise bad_settings("an S3 store needs a bucket", where=uri, hint="s3://BUCKET/prefix")
        self.bucket = parsed.netloc
        self.prefix = parsed.path.strip("/")
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self.patience_s = _patience_s()

    def hasty(self) -> S3Store:
        store = copy.copy(self)
        store.patience_s = min(self.patience_s, HASTY_PATIENCE_S)
        return store

    @cached_property
    def _client(self) -> Any:
        try:
            session = boto3.session.Session()
            if faulty_keys(session):
                raise bad_settings(
                    "the S3 keys begin or end with white space",
                    where=self.uri,
                    hint="a line break in a Secret?",
                )
            custom = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            config = _CONFIG.merge(Config(s3={"addressing_style": "path" if custom else "auto"}))
            region = session.region_name or "us-east-1"
            return session.client("s3", config=config, region_name=region)
        except (ProfileNotFound, ValueError) as error:
            raise bad_settings(f"S3 is not configured: {error}", where=self.uri) from None

    def get_or_none(self, key: str) -> bytes | None:
        def read() -> bytes | None:
            try:
                body: bytes = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
                return body
            except ClientError as error:
                if absent(error):
                    return None
                raise

        return self._call(key, read)

    def put(self, key: str, data: bytes) -> None:
        self._call(key, lambda: self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        requests = 0

        def write() -> bool:
            nonlocal requests
            requests += 1
            try:
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
                return True
            except ClientError as error:
                requests += int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))
                if code_of(error) in {"PreconditionFailed", "412"}:
                    return False
                raise  # 409 ConditionalRequestConflict among others: the retry decides

        if self._call(key, write):
            return True
        # An answer lost on the way makes a retry meet our own object: the same bytes mean that we were first.
        return requests > 1 and self.get_or_none(key) == data

    def put_file(self, key: str, path: Path) -> None:
        self._call(key, lambda: self._client.upload_file(str(path), self.bucket, self._key(key), Config=_TRANSFER))

    def get_file(self, key: str, path: Path) -> None:
        def download() -> bool:
            try:
                self._client.download_file(self.bucket, self._key(key), str(path), Config=_TRANSFER)
                return True
            except ClientError as error:
                if absent(error):
                    self._check_bucket()  # it begins with HEAD
                    return False
                raise

        if not self._call(key, download):
            raise missing(self, key)

    def size(self, key: str) -> int | None:
        found = self._head(key)
        return None if found is None else int(found["ContentLength"])

    def version(self, key: str) -> str | None:
        found = self._head(key)
        return None if found is None else str(found["ETag"])

    def _head(self, key: str) -> dict[str, Any] | None:
        def head() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = self._client.head_object(Bucket=self.bucket, Key=self._key(key))
                return found
            except ClientError as error:
                if absent(error):
                    self._check_bucket()  # HEAD has no body: a missing bucket also answers a bare 404
                    return None
                raise

        return self._call(key, head)

    def list(self, prefix: str) -> Iterator[Entry]:
        start = self._key(prefix) if prefix else (f"{self.prefix}/" if self.prefix else "")
        skip = len(self.prefix) + 1 if self.prefix else 0
        found: list[Entry] = []
        token: str | None = None
        while True:
            page = self._call(prefix, partial(self._page, start, token))
            found += [Entry(item["Key"][skip:], int(item["Size"])) for item in page.get("Contents", ())]
            token = page.get("NextContinuationToken")
            if not token:
                break
        yield from sorted(found)  # SeaweedFS goes folder by folder: a/x/1 comes before a/x-1

    def delete(self, keys: Iterable[str]) -> None:
        batch: list[str] = []
        for key in [*keys, None]:
            if key is not None:
                batch.append(self._key(key))
            if batch and (key is None or len(batch) == 1000):
                objects = {"Objects": [{"Key": each} for each in batch], "Quiet": True}
                self._call(batch[0], partial(self._delete, objects))
                batch = []

    def _delete(self, objects: dict[str, Any]) -> None:
        answer = self._client.delete_objects(Bucket=self.bucket, Delete=objects)
        for fault in answer.get("Errors", ()):  # the answer as a whole is a 200 all the same
            error = ClientError({"Error": fault, "ResponseMetadata": answer["ResponseMetadata"]}, "DeleteObjects")
            if not absent(error):
                raise error

    def _page(self, prefix: str, token: str | None) -> Any:
        more = {"ContinuationToken": token} if token else {}
        return self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more)

    def _check_bucket(self) -> None:
        self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _call(self, key: str, action: Callable[[], T]) -> T:
        """Runs one request: faults that may pass are tried again until patience ends, others named."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(passing),
            wait=tenacity.wait_exponential(multiplier=0.2, max=10) + tenacity.wait_random(0, 1),
            stop=tenacity.stop_after_delay(self.patience_s),
            before_sleep=self._connect_anew,
            reraise=True,
        )
        try:
            return retrying(action)
        except (BotoCoreError, ClientError, Boto3Error, OSError) as error:
            raise named(error, self.bucket, self.uri, key, self.patience_s) from None

    def _connect_anew(self, state: tenacity.RetryCallState) -> None:
        """A connection that reached something else while the server was away would reach it for as long as it lasts."""
        error = state.outcome.exception() if state.outcome else None
        if error is not None and strange(error):
            self._client.close()


def _patience_s() -> float:
    text = os.environ.get(PATIENCE_VARIABLE, "300")
    try:
        return float(text)
    except ValueError:
        raise bad_settings(f"not a number of seconds: {text!r}", where=PATIENCE_VARIABLE) from None
