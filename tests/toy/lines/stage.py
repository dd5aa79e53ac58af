"""Multiplies the numbers of each chunk and notes in a diary that it began one."""

from __future__ import annotations

import errno
import sys
import time
from pathlib import Path

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings, gate
from stages.contract.tables import make_table

SCHEMA = pa.schema([("number", pa.int64()), ("product", pa.int64()), ("text", pa.string())])


def run(context: StageContext) -> None:
    settings = context.settings
    for chunk in context.chunks(context.table("rows")):
        if settings.diary:
            with Path(settings.diary).open("a") as diary:
                diary.write(f"{context.shard}:{chunk.number}\n")
        print(f"chunk {chunk.number} of shard {context.shard}{' ' * settings.padding}", flush=True)
        time.sleep(settings.pause_s)
        if chunk.number == settings.hold_at:
            _wait_for_go(context)
        if settings.fault and chunk.number == settings.fault_at and settings.micro_batch > settings.fault_above:
            if settings.fault == "early":
                return
            _fail(settings.fault)
        rows = [
            {"number": number, "product": number * settings.times, "text": f"{number} × {settings.times}"}
            for number in chunk.rows["number"].to_pylist()
        ]
        context.meter.count(rows_in=len(rows), rows_kept=len(rows))
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures={"largest": max(row["number"] for row in rows)})


def _wait_for_go(context: StageContext) -> None:
    while context.store.size(f"runs/{context.task.run}/go") is None:
        context.check_stop()
        time.sleep(0.2)


def _fail(fault: str) -> None:
    if fault == "settings":
        raise bad_settings("times is not what it should be", where="times", hint="set it")
    if fault == "hog":
        _take_all_memory()
    if fault == "data":
        raise bad_data("row 3 has no text", where="rows", hint="look at the input")
    if fault == "gate":
        raise gate("yield 0.1 is below 0.5")
    if fault == "memory":
        raise MemoryError
    if fault == "accelerator":
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    if fault == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/x")
    if fault == "exit":
        sys.exit(0)
    raise KeyError("no such column")


# Version 2 of Linux's cgroups, and version 1.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def _take_all_memory() -> None:
    """Until the kernel's OOM killer ends the process: for a container that has a limit, or it would be the machine."""
    limits = [path.read_text().strip() for path in _LIMITS if path.is_file()]
    assert any(limit != "max" and int(limit) < 2**40 for limit in limits), "there is no limit to run into"
    held = []
    while True:
        held.append(bytearray(b"x" * 2**24))
