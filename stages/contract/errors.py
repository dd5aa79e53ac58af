"""One table of exit codes, used by the stages, the Jobs' podFailurePolicy and the sequencers.

The numbers follow sysexits.h where it has a fitting one.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from functools import partial
from typing import Any


class ExitCode(IntEnum):
    """What a stage's exit status means and what a sequencer does with it."""

    DONE = 0
    BAD_SETTINGS = 64  # fail the run: trying again changes nothing
    BAD_DATA = 65  # fail this shard: its rows are unusable
    GATE = 66  # a data gate was not met: stop the run, keep everything
    STORE = 69  # the store cannot be reached or is full: try again
    BUG = 70  # anything unforeseen: counts against the retry limit
    INTERRUPTED = 75  # SIGTERM: try again, nothing is held against it
    OUT_OF_MEMORY = 76  # accelerator memory: try again with half the micro-batch


class StageError(Exception):
    """An error that a person can act on: what was wrong, where, and what to do next.

    Attributes:
        message: what was wrong, in one sentence.
        code: the exit status of the process that meets it.
        where: file, key or value it concerns.
        hint: the next thing to do or to type.
    """

    def __init__(self, message: str, *, code: ExitCode, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.where = where
        self.hint = hint

    def __reduce__(self) -> Any:
        # As other processes are to raise it: an exception is pickled by its positional arguments otherwise.
        return partial(StageError, self.message, code=self.code, where=self.where, hint=self.hint), ()

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class Interrupted(StageError):
    """The process was asked to stop; what is committed stays."""

    def __init__(self, message: str = "interrupted; what is committed stays") -> None:
        super().__init__(message, code=ExitCode.INTERRUPTED)


def bad_settings(message: str, *, where: str | None = None, hint: str | None = None) -> StageError:
    return StageError(message, code=ExitCode.BAD_SETTINGS, where=where, hint=hint)


def bad_data(message: str, *, where: str | None = None, hint: str | None = None) -> StageError:
    return StageError(message, code=ExitCode.BAD_DATA, where=where, hint=hint)


def gate(message: str, *, where: str | None = None, hint: str | None = None) -> StageError:
    return StageError(message, code=ExitCode.GATE, where=where, hint=hint)


def unforeseen(error: BaseException) -> tuple[ExitCode, str]:
    """What an error that is no StageError means to a sequencer, and its message on one line."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExitCode.STORE, f"the local disk is full: {text} (free space, or move TMPDIR and MONTESSORI_CACHE)"
    # torch raises its own RuntimeError subclass; its name is compared so that torch need not be imported here
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or "out of memory" in text.lower() or "can't allocate memory" in text:
        return ExitCode.OUT_OF_MEMORY, f"out of memory: {text}"
    return ExitCode.BUG, f"{type(error).__name__}: {text}"
