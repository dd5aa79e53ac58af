"""What a stage's code gets: its settings, its inputs, the rows of its shard, and the means to publish.

A stage is `def run(context: StageContext) -> None`. A sharded one reads

    for chunk in context.chunks(context.table("instructions")):
        chunk.commit({"rows": make_table(answer(chunk.rows), SCHEMA)})

and an unsharded one ends with `context.publish(tables=…, folder=…, figures=…)`. Chunks that an earlier
attempt committed are not seen again.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from stages.contract.artifact import Artifact
from stages.contract.catalog import spec
from stages.contract.chunks import Chunk, ShardWriter
from stages.contract.errors import Interrupted, bad_settings
from stages.contract.ledger import Meter
from stages.contract.manifest import ROWS, Layout, fix_layout
from stages.contract.pods import ALONE, Pods
from stages.contract.progress import Progress, progress_key
from stages.contract.spec import StageSettings
from stages.contract.store import Store
from stages.contract.task import ArtifactInput, ModelInput, Task

CACHE_VARIABLE = "MONTESSORI_CACHE"
DEFAULT_CHUNK_ROWS = 64


def cache_folder() -> Path:
    """Where downloads and converted models are kept: MONTESSORI_CACHE, else ~/.cache/montessori."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "montessori"


class StageContext:
    """One shard of one task, as the stage's code sees it.

    Attributes:
        task: the task as the sequencer wrote it.
        settings: the stage's settings, validated.
        shard: the logical shard; `shards` is their number.
        pods: which of the pods that work on this shard together this is; only the first one publishes and reports.
        store: the store that the task lies in.
        scratch: an empty local folder that is removed afterwards.
        cache: a local folder that is kept.
        progress, meter, log: what is going on, what it costs, what is worth a line.
        stop: set when SIGTERM came.
    """

    def __init__(
        self, store: Store, task: Task, shard: int, scratch: Path, stop: threading.Event, pods: Pods = ALONE
    ) -> None:
        self.store = store
        self.task = task
        self.spec = spec(task.stage)
        self.settings: Any = self._settings()
        chunk_rows = getattr(self.settings, "chunk_rows", DEFAULT_CHUNK_ROWS)
        self.layout = fix_layout(store, task.output, Layout(shards=task.shards.count, chunk_rows=chunk_rows))
        if self.layout.shards != task.shards.count:
            raise bad_settings(
                f"the artifact was begun with {self.layout.shards} shards, the task says {task.shards.count}",
                where=task.output,
                hint="montessori run plans it with the number it was begun with",
            )
        self.shard = shard
        self.pods = pods
        self.shards = self.layout.shards
        self.scratch = scratch
        self.cache = cache_folder()
        self.stop = stop
        self.attempt_id = uuid.uuid4().hex[:12]
        self.meter = Meter()
        self.progress = Progress(store, progress_key(task.run, task.node, shard), shard, task.attempt)
        self.log: Any = structlog.get_logger().bind(run=task.run, node=task.node, shard=shard)
        if pods.count > 1:
            self.log = self.log.bind(pod=pods.place)
        self.afterwards: list[Callable[[], None]] = []
        self.writer = ShardWriter(store, task, shard, self.layout, self.attempt_id, self.meter, scratch)

    def _settings(self) -> StageSettings:
        from pydantic import ValidationError

        try:
            return self.spec.settings.model_validate(self.task.settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise bad_settings(
                first["msg"], where=f"{self.task.key} at settings.{'.'.join(map(str, first['loc']))}"
            ) from None

    # Inputs

    def has(self, name: str) -> bool:
        return name in self.task.inputs

    def artifact(self, name: str) -> Artifact:
        """An input that another node published."""
        found = self._input(name)
        if not isinstance(found, ArtifactInput):
            raise bad_settings(f"input {name!r} is a model, not an artifact", where=self.task.key)
        return Artifact(self.store, found.key, found.digest)

    def table(
        self, name: str, table: str = ROWS, *, columns: Sequence[str] | None = None, rows: range | None = None
    ) -> pa.Table:
        """All rows of an input's table, checked; with `columns` or `rows` (places) only those are read."""
        with self.meter.phase("load"):
            return self.artifact(name).table(table, columns, rows)

    def folder(self, name: str) -> Path:
        """An input's files as a local, read-only folder, checked."""
        found = self._input(name)
        with self.meter.phase("load"):
            path = self.artifact(name).folder(self.cache)
        return path / found.folder if isinstance(found, ArtifactInput) and found.folder else path

    def model(self, name: str) -> Path:
        """An input model as a local Hugging Face folder, wherever it comes from."""
        found = self._input(name)
        if isinstance(found, ArtifactInput):
            return self.folder(name)
        from stages.models.settings import ModelSource
        from stages.models.source import resolve

        with self.meter.phase("load"):
            return resolve(ModelSource.model_validate(found.source), self.cache, self.store)

    def names(self, prefix: str) -> list[str]:
        """The inputs whose name starts with `prefix`, in order."""
        return sorted(name for name in self.task.inputs if name.startswith(prefix))

    def digest(self, name: str) -> str:
        """The content digest of an input, to be kept in rows that were made with it."""
        return self._input(name).identity

    def _input(self, name: str) -> ArtifactInput | ModelInput:
        if name not in self.task.inputs:
            raise bad_settings(
                f"the task has no input {name!r}",
                where=self.task.key,
                hint=f"it has {sorted(self.task.inputs)}",
            )
        return self.task.inputs[name]

    # Work

    def check_stop(self) -> None:
        """Raises Interrupted when SIGTERM came: call it wherever stopping loses nothing."""
        if self.stop.is_set():
            raise Interrupted()

    def chunks(self, rows: pa.Table, *, unit: str = "rows") -> Iterator[Chunk]:
        """The chunks of this shard's part of the rows that are still to do; each must be committed.

        Shards take contiguous blocks whose bounds are multiples of the chunk size, so that neither the number
        of shards nor an interruption changes what stands in a chunk.
        """
        first, last = shard_bounds(rows.num_rows, self.shard, self.layout)
        done = self.writer.committed()
        finished = sum(chunk.stop - chunk.start for chunk in done.values())
        self.progress.begin(last - first, done=finished, unit=unit, phase="working")
        size = self.layout.chunk_rows
        starts = range(first, last, size)
        self.writer.plan(len(starts))
        for number, start in enumerate(starts):
            if number in done:
                continue
            self.check_stop()
            stop = min(start + size, last)
            chunk = Chunk(self.writer, number, start, stop, rows.slice(start, stop - start))
            yield chunk
            assert chunk.committed, "a stage must commit each chunk that it takes"
            finished += stop - start
            self.progress.update(finished)

    def part(self, rows: int) -> range:
        """Which of so many rows are this shard's."""
        return range(*shard_bounds(rows, self.shard, self.layout))

    def remaining(self, rows: pa.Table) -> int:
        """How many rows of this shard no attempt has committed yet: 0 means that nothing need be loaded."""
        return len(self.part(rows.num_rows)) - sum(
            chunk.stop - chunk.start for chunk in self.writer.committed().values()
        )

    def publish(
        self,
        *,
        tables: Mapping[str, pa.Table] | None = None,
        folder: Path | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds whole tables, a folder's files and figures to what this shard publishes when `run` returns."""
        self.writer.add(tables or {}, folder, figures or {})

    def after_publishing(self, action: Callable[[], None]) -> None:
        """Has `action` called once the shard is published: for removing what is needed until then."""
        self.afterwards.append(action)


def shard_bounds(rows: int, shard: int, layout: Layout) -> tuple[int, int]:
    """Rows [first, last) of a shard: whole chunks, spread evenly."""
    chunks = -(-rows // layout.chunk_rows)
    first = chunks * shard // layout.shards * layout.chunk_rows
    last = chunks * (shard + 1) // layout.shards * layout.chunk_rows
    return min(first, rows), min(last, rows)
