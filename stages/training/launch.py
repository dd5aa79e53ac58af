"""Running a training in processes of its own, and keeping its checkpoints in the store while it goes on.

The stage's process imports no torch: it writes the rows to scratch, starts one process a rank (torchrun for several,
none in between for one), passes on progress and checkpoints, and turns what the processes leave behind into figures or
an error. SIGTERM reaches the training as a file, not as a signal: torchrun would kill its workers 30 s after one, which
is too short for a large checkpoint. The processes are a session of their own, and end when this process is gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from stages.contract.context import StageContext
from stages.contract.devices import visible_gpus
from stages.contract.errors import ExitCode, Interrupted, StageError, bad_data
from stages.contract.tables import write_parquet
from stages.distributed import free_port, rank_environment, threads_a_rank
from stages.training.batches import micro_batches, most_ranks
from stages.training.checkpoints import find_checkpoint, remove_checkpoints, save_checkpoint
from stages.training.job import Advance, Job, Outcome, read_advance, write_whole
from stages.training.settings import TrainingSettings

POLL_S = 0.2
LOADING, TRAINING = "loading", "training"


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
    gpus = visible_gpus()
    ranks = settings.ranks or most_ranks(settings.batch, gpus)
    if gpus > ranks and settings.ranks is None:
        context.log.info("fewer ranks than GPUs: the batch has no more rows to deal out", ranks=ranks, gpus=gpus)
    micro_batches(settings.batch, settings.micro_batch, ranks)  # an impossible batch is said before anything loads
    layout = {"ranks": ranks, "zero_stage": settings.zero_stage}
    folder = context.scratch / "training"
    folder.mkdir()
    with context.meter.phase("load"):
        found = find_checkpoint(context.store, context.task.output, context.scratch, layout, context.log)
    if found:
        context.log.info("going on from a checkpoint", step=found[0])
    job = Job(
        stage=context.task.stage,
        settings=settings.model_dump(mode="json"),
        model=model,
        tables={name: _written(folder / f"{name}.parquet", table) for name, table in tables.items()},
        folder=folder,
        resume=found[1] if found else None,
        device="cuda" if gpus else "cpu",
        ranks=ranks,
        parent=os.getpid(),
    )
    outcome = _Launched(context, job, layout).run()
    context.meter.count(tokens=outcome.tokens, rows_in=outcome.rows_in, rows_kept=outcome.rows_kept)
    context.progress.phase("publishing")
    context.publish(folder=job.model_out, figures=outcome.figures)
    context.after_publishing(lambda: remove_checkpoints(context.store, context.task.output))


def _written(path: Path, table: pa.Table) -> Path:
    write_parquet(table, path)
    return path


class _Launched:
    """The training's processes, from start to outcome."""

    def __init__(self, context: StageContext, job: Job, layout: dict[str, int]) -> None:
        self.context = context
        self.job = job
        self.layout = layout
        self.counting = False

    def run(self) -> Outcome:
        path = self.job.folder / "job.json"
        write_whole(path, self.job)
        process = subprocess.Popen(
            [*_launcher(self.job.ranks), "stages.training.worker", str(path)],
            env={**os.environ, **_environment(self.job)},
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                self._wait(process, advance := read_advance(self.job))
                self._show(advance)
                self._ask_to_stop(advance)
                self._keep_checkpoints()
        finally:
            _kill(process)
        self._keep_checkpoints()
        return self._outcome(process.returncode)

    def _wait(self, process: subprocess.Popen[bytes], advance: Advance) -> None:
        loading = advance.phase == LOADING
        with self.context.meter.phase("load" if loading else "compute", devices=0 if loading else self.job.ranks):
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                return

    def _show(self, advance: Advance) -> None:
        if advance.phase != TRAINING:
            self.context.progress.phase(advance.phase)
        elif not self.counting:
            self.context.progress.begin(advance.total, done=advance.done, unit="steps", phase=TRAINING)
            self.counting = True
        else:
            self.context.progress.update(advance.done)

    def _ask_to_stop(self, advance: Advance) -> None:
        if not self.context.stop.is_set():
            return
        if advance.phase == LOADING:
            raise Interrupted()  # nothing is done yet, so nothing is worth waiting for
        self.job.stop.touch()

    def _keep_checkpoints(self) -> None:
        for marker in sorted(self.job.checkpoints.glob("*.complete")):
            folder, step = marker.with_suffix(""), int(marker.stem.rpartition("-")[2])
            try:
                with self.context.meter.phase("upload"):
                    save_checkpoint(
                        self.context.store,
                        self.context.task.output,
                        folder,
                        step=step,
                        attempt=self.context.attempt_id,
                        layout=self.layout,
                    )
            except StageError as error:
                if error.code != ExitCode.STORE:
                    raise
                # The training needs no store: going on loses nothing, and the next checkpoint tries again.
                self.context.log.warning("a checkpoint could not be stored", step=step, error=str(error))
            marker.unlink()
            shutil.rmtree(folder)

    def _outcome(self, status: int) -> Outcome:
        found = [Outcome.model_validate_json(path.read_text()) for path in self.job.folder.glob("outcome-*.json")]
        failed = [outcome for outcome in found if outcome.code != ExitCode.DONE]
        if failed:
            # Of several ranks' errors one that a person can act on is worth more than a lost connection.
            raise min(failed, key=lambda outcome: outcome.code == ExitCode.BUG).error()
        if status == 0 and found:
            return found[0]
        if status == -signal.SIGKILL:
            raise StageError(
                "the training process was killed, most likely for want of memory",
                code=ExitCode.OUT_OF_MEMORY,
                hint="lower micro_batch or set gradient_checkpointing",
            )
        raise StageError(f"the training ended with status {status}; its log says why", code=ExitCode.BUG)


def _launcher(ranks: int) -> list[str]:
    if ranks == 1:
        return [sys.executable, "-m"]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]


def _environment(job: Job) -> dict[str, str]:
    environment = {
        "HF_DATASETS_CACHE": str(job.folder / "datasets"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",  # the model is a folder: nothing is to be asked for
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    if job.device == "cpu":
        # torchrun gives each rank one thread otherwise
        environment["OMP_NUM_THREADS"] = str(threads_a_rank(job.ranks))
    if job.ranks == 1:
        return environment | rank_environment(0, 1, free_port(), job.device)
    return environment | {"DS_ACCELERATOR": job.device}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of the processes; after a normal end nothing is."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
