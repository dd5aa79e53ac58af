"""Running one shard of a task from its URI to its exit code: what `python -m stages` does."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path

import structlog

from stages.contract.catalog import STAGES
from stages.contract.clock import now, stamp
from stages.contract.context import StageContext
from stages.contract.errors import ExitCode, StageError, bad_settings, unforeseen
from stages.contract.logs import LogTee, configure, log_prefix
from stages.contract.manifest import read_shard
from stages.contract.outcome import INDEX_VARIABLE, Outcome, outcome_key
from stages.contract.pods import ALONE, Pods, read_pods
from stages.contract.store import Store
from stages.contract.task import Task, open_task
from stages.imports import leave_out_sklearn


def execute(uri: str, index: int | None = None) -> int:
    """Runs the shard that `index` (default: JOB_COMPLETION_INDEX, else 0) means and returns the exit code."""
    configure()
    try:
        store, task = open_task(uri)
        index = _index() if index is None else index
        pods = read_pods(task, index)
        shard = _logical_shard(task, index if pods.count == 1 else 0)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    tee = LogTee(store, log_prefix(task.run, task.node, task.attempt, shard, pods.place))
    tee.start()
    try:
        return _recorded(store, task, shard, stop, pods)
    finally:
        tee.close()


def _recorded(store: Store, task: Task, shard: int, stop: threading.Event, pods: Pods) -> int:
    started = stamp()
    configure()
    log = structlog.get_logger().bind(run=task.run, node=task.node, shard=shard, attempt=task.attempt)
    if pods.count > 1:
        log = log.bind(pod=pods.place)
    code, message = ExitCode.DONE, ""
    try:
        run_shard(store, task, shard, stop, pods)
    except StageError as error:
        code, message = error.code, str(error)
        log.error("stopped", code=int(code), error=message)
    except (Exception, SystemExit) as error:  # a library's exit(0) would pass for a published shard
        code, message = unforeseen(error)
        log.error("stopped", code=int(code), error=message)
        if not isinstance(error, MemoryError):
            traceback.print_exc()
    if not pods.first:
        return int(code)  # the shard's outcome is what its first pod says
    outcome = Outcome(
        shard=shard, attempt=task.attempt, code=int(code), message=message, started=started, finished=stamp()
    )
    try:
        store.put(outcome_key(task.run, task.node, task.attempt, shard), outcome.model_dump_json().encode())
    except StageError as error:
        log.error("the outcome could not be recorded", error=str(error))
    return int(code)


def run_shard(store: Store, task: Task, shard: int, stop: threading.Event, pods: Pods = ALONE) -> None:
    """Runs one shard, or one pod's part of it, in this process; what stops it comes out as an exception."""
    if read_shard(store, task.output, shard) is not None:
        structlog.get_logger().info("this shard is published already", node=task.node, shard=shard)
    with tempfile.TemporaryDirectory(prefix=f"montessori-{task.node}-", ignore_cleanup_errors=True) as scratch:
        context = StageContext(store, task, shard, Path(scratch), stop, pods)
        if pods.first:
            context.progress.start()
        _watch_deadline(task, stop)
        _run_stage(context)


def _run_stage(context: StageContext) -> None:
    began = time.perf_counter()
    phase = "failed"
    try:
        if read_shard(context.store, context.task.output, context.shard) is None:
            if context.task.stage in STAGES:  # somebody else's may want it
                leave_out_sklearn()
            module = import_module(context.spec.entry)
            module.run(context)
            context.meter.peak(_peak_memory_bytes())
        if context.pods.first:
            context.writer.publish()
        for action in context.afterwards:
            action()
        phase = "done"
    except StageError as error:
        if error.code == ExitCode.INTERRUPTED:
            phase = "interrupted"
        raise
    finally:
        if context.pods.first:
            context.progress.close(phase)
        context.log.info(phase, seconds=round(time.perf_counter() - began, 1))


def _watch_deadline(task: Task, stop: threading.Event) -> None:
    """A deadline is a SIGTERM that the process sends itself: what is committed stays."""
    if task.deadline is None:
        return
    timer = threading.Timer(max(0.0, (task.deadline - now()).total_seconds()), stop.set)
    timer.daemon = True
    timer.start()


def _peak_memory_bytes() -> int:
    """The largest resident size of this process or of one child."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return 1024 * max(own, children)


def _index() -> int:
    text = os.environ.get(INDEX_VARIABLE, "0")
    if not text.isdecimal():
        raise bad_settings(f"{INDEX_VARIABLE} is not a number: {text!r}")
    return int(text)


def _logical_shard(task: Task, index: int) -> int:
    if not 0 <= index < len(task.shards.indices):
        raise bad_settings(f"index {index} is outside the task's {len(task.shards.indices)} shards", where=task.key)
    return task.shards.indices[index]
