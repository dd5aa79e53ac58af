"""Does a store do what the contract needs of it? `python -m stages.contract.store.check s3://bucket/prefix` says so.

`montessori doctor` asks here, and `helm test` runs it with the stages' own image and keys.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable

from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store, open_store

WORKS = "put, conditional put, get, list and delete work"


def faults(store: Store) -> list[str]:
    """Names of the operations that do not work as S3's do; an object is written, read and deleted.

    Raises:
        StageError: the store refuses or does not answer.
    """
    key = f"doctor/{uuid.uuid4().hex}"
    steps: list[tuple[str, Callable[[], bool]]] = [
        ("put", lambda: store.put_if_absent(key, b"1")),
        ("conditional put", lambda: not store.put_if_absent(key, b"2")),
        ("get", lambda: store.get(key) == b"1"),
        ("get of what is not there", lambda: store.get_or_none(f"{key}-absent") is None),
        ("list", lambda: [entry.key for entry in store.list(key)] == [key]),
    ]
    failed = [name for name, step in steps if not step()]
    store.delete([key])
    return failed


def main(arguments: list[str]) -> int:
    """Prints one line; the exit code is the contract's."""
    if len(arguments) != 1:
        print("usage: python -m stages.contract.store.check STORE_URI", file=sys.stderr)
        return ExitCode.BAD_SETTINGS
    try:
        store = open_store(arguments[0])
        failed = faults(store)
    except StageError as error:
        print(error, file=sys.stderr)
        return error.code
    if failed:
        print(f"{store.uri}: {', '.join(failed)} does not work as S3's does", file=sys.stderr)
        return ExitCode.BAD_SETTINGS
    print(f"{store.uri}: {WORKS}")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
