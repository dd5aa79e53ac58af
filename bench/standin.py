"""What stages and their pods leave in a store, written by one process for pods that nobody runs.

A simulated node says that a pod runs and, a second later, that it ended well; no container was ever started. For each
pod that runs, `Stages` reads the task as the pod would have, and commits the shard as a stage does: a Parquet file, the
shard's manifest, the artifact's after the last shard, the outcome. Logs and progress are left out, and what is in the
rows means nothing; but no two artifacts have the same, so that no run is given what another one made.
"""

from __future__ import annotations

import json
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from k8s.client import ApiError, HttpTransport, NoAnswer
from k8s.names import OURS
from stages.contract.chunks import ShardWriter
from stages.contract.clock import stamp
from stages.contract.ledger import Meter
from stages.contract.manifest import Layout, fix_layout
from stages.contract.outcome import Outcome, outcome_key
from stages.contract.store import Store
from stages.contract.task import Task

SILENT_S = 120.0  # bookmarks come once a minute
COMMITS_AT_ONCE = 4


def events(transport: HttpTransport, path: str, stop: threading.Event, **query: str) -> Iterator[tuple[str, Any, int]]:
    """(type, object, bytes) of all that is there and of every change, watched again until `stop`.

    A watch without a version begins with what exists: a gap between two of them loses no object.
    """
    asked = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "3600", "labelSelector": OURS, **query}
    while not stop.is_set():
        try:
            for line in transport.lines(path, asked, SILENT_S):
                if stop.is_set():
                    return
                event = json.loads(line)
                if event["type"] not in ("BOOKMARK", "ERROR"):
                    yield event["type"], event["object"], len(line)
        except (ApiError, NoAnswer):
            stop.wait(0.2)


class Stages:
    """Commits the shard of every pod of one namespace once it runs, from threads of its own, until `close`.

    Attributes:
        committed: shards so far.
        late: pods that ended before their shard was there, as no stage's does: its sequencer tries it again.
        fault: the first thing that went wrong.
    """

    def __init__(self, transport: HttpTransport, namespace: str, store: Store) -> None:
        self.committed = self.late = 0
        self.fault: BaseException | None = None
        self._store = store
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[Task, Layout]] = {}
        self._seen: set[str] = set()  # pods by UID
        self._done: set[str] = set()
        self._pool = ThreadPoolExecutor(COMMITS_AT_ONCE, thread_name_prefix="stage")
        _table("")  # the first one takes seconds, since it imports pandas: the first pods would have ended meanwhile
        # A pod enters this selection when it begins to run, and leaves it when it ends.
        running = events(
            transport, f"/api/v1/namespaces/{namespace}/pods", self._stop, fieldSelector="status.phase=Running"
        )
        threading.Thread(target=self._listen, args=(running,), name="pods", daemon=True).start()

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _listen(self, running: Iterator[tuple[str, Any, int]]) -> None:
        for kind, pod, _ in running:
            uid = pod["metadata"]["uid"]
            if kind == "DELETED":
                self.late += uid not in self._done
            if uid in self._seen:
                continue
            self._seen.add(uid)
            uri = pod["spec"]["containers"][0]["args"][0]
            index = int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
            try:
                self._pool.submit(self._work, uid, uri, index)
            except RuntimeError:  # closed meanwhile
                return

    def _work(self, uid: str, uri: str, index: int) -> None:
        try:
            self._commit(uri, index)
            with self._lock:
                self._done.add(uid)
                self.committed += 1
        except Exception as error:  # the pool would keep it to itself
            self.fault = self.fault or error

    def _commit(self, uri: str, index: int) -> None:
        started = stamp()
        task, layout = self._task(uri)
        shard = task.shards.indices[index]
        rows = _table(f"{task.fingerprint} {shard}")
        with tempfile.TemporaryDirectory() as scratch:
            writer = ShardWriter(self._store, task, shard, layout, uuid.uuid4().hex, Meter(), Path(scratch))
            writer.add({"rows": rows}, None, {})
            writer.publish()
        ended = Outcome(shard=shard, attempt=task.attempt, code=0, started=started, finished=stamp())
        key = outcome_key(task.run, task.node, task.attempt, shard)
        self._store.put(key, ended.model_dump_json().encode())

    def _task(self, uri: str) -> tuple[Task, Layout]:
        with self._lock:
            if uri not in self._tasks:
                task = Task.model_validate_json(self._store.get(uri.removeprefix(f"{self._store.uri}/")))
                layout = fix_layout(self._store, task.output, Layout(shards=task.shards.count, chunk_rows=64))
                self._tasks[uri] = task, layout
            return self._tasks[uri]


def _table(text: str) -> pa.Table:
    return pa.table({"text": [text]})
