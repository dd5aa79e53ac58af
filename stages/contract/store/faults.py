"""What S3 servers and boto3 say when something is wrong: which faults pass, and a line for the others.

A message names a server's error code and not its text, which may hold an access key.
"""

from __future__ import annotations

import errno
from typing import Any

from boto3.exceptions import Boto3Error, S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from stages.contract.errors import ExitCode, StageError, bad_settings

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_FULL = {"XMinioStorageFull", "InsufficientStorage", "507", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
_WRONG_KEYS = {
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_FORBIDDEN = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_ROLES = {"AssumeRole", "AssumeRoleWithWebIdentity"}  # asked of another server, before the store is
_CONFIGURATION = {
    "InvalidConfigError",
    "InvalidEndpoint",
    "NoCredentialsError",
    "NoRegionError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "UnknownServiceError",
}
# 4xx that the next try may not meet. NoSuchUpload: a multipart upload was lost, and starts again.
_PASSING = {
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "SlowDown",
    "NoSuchUpload",
    "XMinioServerNotInitialized",
}
_PASSING_STATUS = {408, 409, 429}
_LASTING_STATUS = {501, 505, 507}


def code_of(error: BaseException) -> str:
    """S3's own error code, or the status where an answer has none; "" for what is no answer."""
    error = _cause(error)
    if not isinstance(error, ClientError):
        return ""
    return "507" if _status(error) == 507 else str(error.response.get("Error", {}).get("Code", ""))


def absent(error: BaseException) -> bool:
    """Whether the server says that there is no such object."""
    return code_of(error) in _ABSENT and not strange(error)


def strange(error: BaseException) -> bool:
    """Whether this 404 is no S3 server's: theirs have an error code in the body, except for HEAD.

    A proxy or an ingress answers so while the server behind it is away.
    """
    error = _cause(error)
    return isinstance(error, ClientError) and code_of(error) == "404" and error.operation_name != "HeadObject"


def passing(error: BaseException) -> bool:
    """Whether trying again may help: connections, time-outs, 5xx and throttling pass; wrong keys do not."""
    error = _cause(error)
    if isinstance(error, ClientError):
        code, status = code_of(error), _status(error)
        if strange(error):
            return True
        if code in _FULL or status in _LASTING_STATUS:
            return False
        return code in _PASSING or status >= 500 or status in _PASSING_STATUS
    if isinstance(error, BotoCoreError):
        return type(error).__name__ not in _CONFIGURATION
    return isinstance(error, Boto3Error | ConnectionError)


def named(error: Exception, bucket: str, uri: str, key: str, patience_s: float) -> StageError:
    """The error that a person reads, with the exit code that fits."""
    where = f"{uri}/{key}"
    cause = _cause(error)
    code = code_of(cause)
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return bad_settings("no S3 credentials", where=uri, hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if code == "NoSuchBucket":
        return bad_settings(f"there is no bucket {bucket!r}", where=uri, hint="create it, or name another")
    if isinstance(cause, ClientError) and cause.operation_name in _ROLES and not passing(cause):
        return bad_settings(
            f"the cloud gives no keys for the role of AWS_ROLE_ARN ({cause.operation_name}: {code})",
            where=uri,
            hint="does the role trust this ServiceAccount?",
        )
    if code in _WRONG_KEYS:
        return bad_settings(
            f"the S3 keys are refused ({code})",
            where=uri,
            hint="check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if code in _FORBIDDEN:
        return bad_settings(
            "these S3 keys may not do that",
            where=where,
            hint="they need get, put, list and delete on the bucket",
        )
    if code in _FULL:
        return StageError("the S3 server is full", code=ExitCode.STORE, where=where, hint="free space, then run again")
    if isinstance(cause, OSError) and not passing(cause):
        return _local(cause)
    if isinstance(cause, ClientError) and not passing(cause):
        return StageError(
            f"the S3 server refuses the request ({code}, HTTP {_status(cause)})",
            code=ExitCode.STORE,
            where=where,
        )
    if isinstance(cause, BotoCoreError) and not passing(cause):
        return bad_settings(f"S3 is not configured: {_short(cause)}", where=uri)
    what = "something else does: 404 without an S3 error code" if strange(cause) else code or _short(cause)
    return StageError(
        f"the S3 server does not answer, tried for {patience_s:.0f} s ({what})",
        code=ExitCode.STORE,
        where=where,
        hint="check AWS_ENDPOINT_URL and the server, then run again: what is committed stays",
    )


def faulty_keys(session: Any) -> bool:
    """Whether a key has white space around it: it would appear in the text of an "invalid header" error."""
    keys = session.get_credentials()
    return keys is not None and any(each != (each or "").strip() for each in (keys.access_key, keys.secret_key))


def _local(error: OSError) -> StageError:
    """Trouble on this machine's side of a transfer."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StageError(
        "the local disk is full" if full else f"a local file cannot be used: {error.strerror}",
        code=ExitCode.STORE,
        where=error.filename,
        hint="free space, or move TMPDIR and MONTESSORI_CACHE" if full else None,
    )


def _cause(error: BaseException) -> BaseException:
    """The answer that `upload_file` hides in an exception of its own."""
    if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, ClientError):
        return error.__context__
    return error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
