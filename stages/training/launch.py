"""Running a training in processes of its own, and keeping its checkpoints in the store while it goes on.

The stage's process computes nothing: it writes the rows to scratch, starts one process a rank (torchrun for several,
none in between for one), passes on progress and checkpoints, and turns what the processes leave behind into figures or
an error. SIGTERM reaches the training as a file, not as a signal: torchrun would kill its workers 30 s after one, which
is too short for a large checkpoint. The processes are a session of their own, and end when this process is gone.

Over several pods each pod's stage does this for its own ranks, and the stages agree (gang.py): the first pod alone
reports, completes checkpoints and publishes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.devices import visible_gpus
from stages.contract.errors import ExitCode, Interrupted, StageError, bad_data
from stages.contract.tables import write_parquet
from stages.distributed import free_port
from stages.training.batches import micro_batches, most_ranks
from stages.training.checkpoints import (
    Found,
    complete_checkpoint,
    fetch_checkpoint,
    find_checkpoint,
    remove_checkpoints,
    upload_part,
)
from stages.training.gang import Gang, Start, worst
from stages.training.job import Advance, Job, Outcome, read_advance, write_whole
from stages.training.processes import end_ranks, start_ranks
from stages.training.rendezvous import Introduction, gather, join
from stages.training.settings import TrainingSettings

POLL_S = 0.2


def train(context: StageContext, model: Path, tables: Mapping[str, pa.Table]) -> None:
    """Trains `model` on `tables` as the stage's settings say, and publishes the folder and figures that come of it.

    Args:
        tables: `train`, and for pairs `heldout`.

    Raises:
        StageError: BAD_DATA for no rows, BAD_SETTINGS for a batch that ranks cannot share, OUT_OF_MEMORY, GATE for a
            loss that is not finite; Interrupted after SIGTERM, once the checkpoint is in the store.
    """
    settings: TrainingSettings = context.settings
    if not tables["train"].num_rows:
        raise bad_data("there is no row to train on", where=context.task.node)
    gpus, pods = visible_gpus(), context.pods
    ranks_here = settings.ranks or most_ranks(settings.batch, gpus, pods.count)
    ranks = ranks_here * pods.count
    if gpus > ranks_here and settings.ranks is None:
        context.log.info("fewer ranks than GPUs: the batch has no more rows to deal out", ranks=ranks, gpus=gpus)
    micro_batches(settings.batch, settings.micro_batch, ranks)  # an impossible batch is said before anything loads
    layout = {"ranks": ranks, "zero_stage": settings.zero_stage}
    folder = context.scratch / "training"
    folder.mkdir()
    gang, start, found = _agreed(context, layout, ranks_here)
    if found:
        context.log.info("going on from a checkpoint", step=found.step)
    job = Job(
        stage=context.task.stage,
        settings=settings.model_dump(mode="json"),
        model=model,
        tables={name: _written(folder / f"{name}.parquet", table) for name, table in tables.items()},
        folder=folder,
        resume=found.folder if found else None,
        device="cuda" if gpus else "cpu",
        ranks=ranks,
        pods=pods.count,
        place=pods.place,
        parent=os.getpid(),
    )
    outcome = _Launched(context, job, layout, gang, start).run()
    if not pods.first:
        gang.await_published()
        return
    context.meter.count(tokens=outcome.tokens, rows_in=outcome.rows_in, rows_kept=outcome.rows_kept)
    context.progress.phase("publishing")
    context.publish(folder=job.model_out, figures=outcome.figures)
    context.after_publishing(gang.tell_published)
    context.after_publishing(lambda: remove_checkpoints(context.store, context.task.output))


def _agreed(context: StageContext, layout: dict[str, int], ranks_here: int) -> tuple[Gang, Start, Found | None]:
    """Once all pods are there: what they agree on, and this pod's copy of the checkpoint that they go on from."""
    store, output, pods = context.store, context.task.output, context.pods
    me = Introduction(context.task.key, context.task.fingerprint, ranks_here)
    if not pods.first:
        gang, start = join(pods, me, context.check_stop)
        with context.meter.phase("load"):
            return gang, start, fetch_checkpoint(store, start.resume, context.scratch) if start.resume else None
    gang = Gang()
    if pods.count > 1:
        context.progress.phase("waiting for the other pods")
        gang = gather(pods, me, context.check_stop)
    with context.meter.phase("load"):
        found = find_checkpoint(store, output, context.scratch, layout, context.log)
    start = Start(attempt=context.attempt_id, port=free_port(), resume=found.marker if found else None)
    gang.tell("start", **start.model_dump())
    return gang, start, found


def _written(path: Path, table: pa.Table) -> Path:
    write_parquet(table, path)
    return path


class _Launched:
    """This pod's training processes, from start to outcome."""

    def __init__(self, context: StageContext, job: Job, layout: dict[str, int], gang: Gang, start: Start) -> None:
        self.context = context
        self.job = job
        self.layout = layout
        self.gang = gang
        self.start = start
        self.counting = ""
        self.stopping = False

    def run(self) -> Outcome:
        path = self.job.folder / "job.json"
        write_whole(path, self.job)
        process = start_ranks(self.job, path, self.gang.address, self.start.port)
        try:
            try:
                while process.poll() is None:
                    self._wait(process, advance := read_advance(self.job))
                    self._show(advance)
                    self._ask_to_stop(advance)
                    self.gang.take_in()
                    self._keep_checkpoints()
                    self.gang.check(stopping=self.stopping)
            finally:
                end_ranks(process)
            self._keep_checkpoints()
            self._await_parts()
            return self._outcome(process.returncode)
        except StageError as error:
            # What a rank says of itself comes before what the others made of it.
            self.gang.settle([*self._failures(), error])

    def _wait(self, process: subprocess.Popen[bytes], advance: Advance) -> None:
        loading = advance.phase == "loading"
        with self.context.meter.phase("load" if loading else "compute", devices=0 if loading else self.job.ranks):
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                return

    def _show(self, advance: Advance) -> None:
        if not advance.total:
            self.context.progress.phase(advance.phase)
        elif advance.phase != self.counting:
            unit = "pairs" if advance.phase == "reference" else "steps"
            self.context.progress.begin(advance.total, done=advance.done, unit=unit, phase=advance.phase)
            self.counting = advance.phase
        else:
            self.context.progress.update(advance.done)

    def _ask_to_stop(self, advance: Advance) -> None:
        """The first pod's ranks decide, since it alone knows how far they are; the others pass on the wish."""
        if self.stopping or not (self.context.stop.is_set() or self.gang.stop_wanted):
            return
        self.stopping = True
        if not self.context.pods.first:
            self.gang.tell("stop")
        elif advance.phase in ("loading", "reference"):
            raise Interrupted()  # nothing is done yet, so nothing is worth waiting for
        else:
            self.job.stop.touch()

    def _keep_checkpoints(self) -> None:
        """Uploads what this pod's ranks have written of checkpoints, and completes those that all have uploaded.

        The training needs no store: where it is away going on loses nothing, and the next checkpoint tries again.
        """
        store, output = self.context.store, self.context.task.output
        for marker in sorted(self.job.checkpoints.glob("*.complete")):
            folder, step = marker.with_suffix(""), int(marker.stem.rpartition("-")[2])
            try:
                with self.context.meter.phase("upload"):
                    files = upload_part(store, output, folder, step=step, attempt=self.start.attempt)
            except StageError as error:
                self._not_stored(step, error)
                self.gang.part(step, None)
            else:
                self.gang.part(step, files)
            marker.unlink()
            shutil.rmtree(folder)
        for step, files in self.gang.whole().items():
            try:
                complete_checkpoint(store, output, files, step=step, attempt=self.start.attempt, layout=self.layout)
            except StageError as error:
                self._not_stored(step, error)

    def _not_stored(self, step: int, error: StageError) -> None:
        if error.code != ExitCode.STORE:
            raise error
        self.context.log.warning("a checkpoint could not be stored", step=step, error=str(error))

    def _await_parts(self) -> None:
        """Before the end of an interrupted training: its last checkpoint counts once all pods have uploaded theirs."""
        while self.stopping and self.context.pods.first and self.gang.parts:
            self.gang.check(stopping=True)
            time.sleep(POLL_S)
            self.gang.take_in()
            self._keep_checkpoints()

    def _failures(self) -> list[StageError]:
        """What this pod's ranks ended with."""
        found = [Outcome.model_validate_json(path.read_text()) for path in self.job.folder.glob("outcome-*.json")]
        return [outcome.error() for outcome in found if outcome.code != ExitCode.DONE]

    def _outcome(self, status: int) -> Outcome:
        if failures := self._failures():
            raise worst(failures, lost=False)
        said = self.job.outcome(0)
        if status == 0 and (said.exists() or not self.context.pods.first):
            return Outcome.model_validate_json(said.read_text()) if said.exists() else Outcome()
        if status == -signal.SIGKILL:
            raise StageError(
                "the training process was killed, most likely for want of memory",
                code=ExitCode.OUT_OF_MEMORY,
                hint="lower micro_batch or set gradient_checkpointing",
            )
        raise StageError(f"the training ended with status {status}; its log says why", code=ExitCode.BUG)
