"""Pods that train together: how they meet, agree, and end alike.

The first pod listens at the rendezvous' address, the others connect to it (link.py). It decides from which checkpoint
all go on and tells them where its ranks will listen; torchrun starts from there. While the training goes on a pod that
was asked to stop says so, each pod says which parts of a checkpoint it has uploaded, and a pod that fails or is lost
ends the training of all. The ends are settled in the first pod: of several errors all pods end with the one that a
person can act on. The others do not end before the artifact is published: a first pod that died just before would
otherwise wait for them in vain.

A pod that was replaced while the others have not noticed yet is refused, and tries again until they are back too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from stages.contract.errors import ExitCode, Interrupted, StageError
from stages.contract.pods import ALONE, Pods
from stages.training.checkpoints import CheckpointFile, Files
from stages.training.link import Link, Message

SETTLE_S = 20.0
_POLL_S = 0.05


class Start(BaseModel):
    """What the first pod tells the others once all are there.

    Attributes:
        attempt: under which the parts of a checkpoint are uploaded.
        port: where the first pod's ranks listen for the others.
        resume: the marker of the checkpoint to go on from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempt: str
    port: int
    resume: str | None = None


class Gang:
    """This pod's view of all of them. One pod alone is a gang without links, of which every method is true."""

    def __init__(self, pods: Pods = ALONE, links: Mapping[int, Link] | None = None) -> None:
        self.pods = pods
        self.links = dict(links or {})
        self.stop_wanted = False
        self.published = False
        self.parts: dict[int, dict[int, Files | None]] = {}  # by step, by pod; None: it could not be uploaded
        self._ends: dict[int, StageError] = {}
        self._lost: set[int] = set()
        self._verdict: StageError | None = None
        self._abandoned = False

    @property
    def address(self) -> str:
        """Where the first pod's ranks are reached."""
        return "127.0.0.1" if self.pods.first else self.links[0].address

    def tell(self, kind: str, **body: Any) -> None:
        for link in self.links.values():
            link.send(kind, **body)

    def take_in(self) -> None:
        """Reads what the others have said, and notices which of them are lost."""
        for place, link in self.links.items():
            lost = link.lost  # asked first: what it said before it was lost is read below
            for message in link.received():
                self._take(place, message)
            if lost and place not in self._ends and not self.published and not self._verdict:
                self._lost.add(place)

    def check(self, *, stopping: bool = False) -> None:
        """Raises what ends the training of all, if anything taken in does.

        Args:
            stopping: the training was asked to stop, so that pods which end as interrupted are as they should be; this
                one's ranks are about to end alike.

        Raises:
            StageError: what ended another pod; Interrupted where one was lost, or all are to end.
        """
        if self._verdict:
            raise self._verdict
        for place, error in self._ends.items():
            if not stopping or error.code != ExitCode.INTERRUPTED or self.links[place].lost:
                raise error
        if self._lost:
            raise self._loss()
        if self._abandoned:
            raise Interrupted("another pod of this training ended; it goes on from its last checkpoint")

    def part(self, step: int, files: Files | None) -> None:
        """This pod's files of a checkpoint are in the store; None if they could not be stored."""
        self.parts.setdefault(step, {})[self.pods.place] = files
        if not self.pods.first:
            listed = None if files is None else {name: file.model_dump() for name, file in files.items()}
            self.tell("part", step=step, files=listed)

    def whole(self) -> dict[int, Files]:
        """Steps of which every pod's part is in the store, with all files; each is told once, and only to the first."""
        found: dict[int, Files] = {}
        if not self.pods.first:
            return found
        for step, parts in sorted(self.parts.items()):
            if len(parts) < self.pods.count:
                continue
            del self.parts[step]
            if all(files is not None for files in parts.values()):
                found[step] = {name: file for files in parts.values() if files for name, file in files.items()}
        return found

    def settle(self, errors: Sequence[StageError]) -> NoReturn:
        """Ends the training of all pods.

        Args:
            errors: what this pod met, the first thing first.

        Raises:
            StageError: what all pods end with.
        """
        own = worst(errors, lost=bool(self._lost))
        if self.pods.first:
            self.tell("abandon")
            self._await(lambda: self._lost | self._ends.keys() == self.links.keys())
            losses = [self._loss()] if self._lost else []
            own = worst([*errors, *self._ends.values(), *losses], lost=bool(self._lost))
            self.tell_verdict(own)
        else:
            self.tell("end", **_error_body(own))
            self._await(lambda: self._verdict is not None or bool(self._lost))
            losses = [self._loss()] if self._lost else []
            own = self._verdict or worst([*errors, *losses], lost=bool(self._lost))
        self.close()
        raise own

    def tell_verdict(self, error: StageError) -> None:
        """Has all other pods end with this."""
        self.tell("verdict", **_error_body(error))

    def await_published(self) -> None:
        """Waits, in a pod that is not the first, until the first one has published."""
        try:
            while not self.published:
                self.take_in()
                self.check()
                time.sleep(_POLL_S)
        finally:
            self.close()

    def tell_published(self) -> None:
        self.tell("published")
        self.close()

    def close(self) -> None:
        for link in self.links.values():
            link.close()

    def _await(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + SETTLE_S
        self.take_in()
        while not done() and time.monotonic() < end:
            time.sleep(_POLL_S)
            self.take_in()

    def _take(self, place: int, message: Message) -> None:
        match message.pop("kind"):
            case "stop":
                self.stop_wanted = True
            case "part":
                told = message["files"]
                files = told and {name: CheckpointFile.model_validate(file) for name, file in told.items()}
                self.parts.setdefault(message["step"], {})[place] = files
            case "end":
                self._ends[place] = _error(message)
            case "abandon":
                self._abandoned = True
            case "verdict":
                self._verdict = _error(message)
            case "published":
                self.published = True

    def _loss(self) -> StageError:
        places = ", ".join(map(str, sorted(self._lost)))
        return Interrupted(f"pod {places} of {self.pods.count} was lost; the training goes on from its last checkpoint")


def worst(errors: Sequence[StageError], *, lost: bool) -> StageError:
    """Of what several pods and ranks met, what all end with: what a person can act on, and the first of that.

    A rank that loses its connection fails with a bug (70). Where a pod was lost, that is why.
    """
    last = [ExitCode.INTERRUPTED, ExitCode.BUG] if lost else [ExitCode.BUG, ExitCode.INTERRUPTED]
    return min(errors, key=lambda error: last.index(error.code) if error.code in last else -1)


def _error_body(error: StageError) -> dict[str, Any]:
    return {"code": int(error.code), "message": error.message, "where": error.where, "hint": error.hint}


def _error(body: Message) -> StageError:
    return StageError(body["message"], code=ExitCode(body["code"]), where=body["where"], hint=body["hint"])
