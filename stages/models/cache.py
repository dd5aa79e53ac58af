"""Folders that are made once and then only read, whoever makes them and however many at a time.

A folder is written beside its place and renamed into it, so what has the name is complete. Of two processes
that make the same folder, the second throws its own away. A process killed half-way leaves a `.making-*`
folder, which nothing reads.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make(temporary folder)` unless it is there already."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        make(temporary)
        # mkdtemp and safetensors keep files to their owner; a pod runs as another user than the image's builder.
        temporary.chmod(0o755)
        for path in temporary.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, and made the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
