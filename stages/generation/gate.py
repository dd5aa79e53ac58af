"""Counting what became of a shard's outputs, and stopping a run whose teacher does not do what it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stages.contract.context import StageContext
from stages.contract.errors import gate


def tally(good: str, reasons: Iterable[str | None]) -> dict[str, Any]:
    """Figures of some outputs: how many, how many are `good` (no reason against them), and the others by reason."""
    listed = list(reasons)
    bad = Counter(reason for reason in listed if reason is not None)
    return {
        "outputs": len(listed),
        good: len(listed) - sum(bad.values()),
        "reasons": dict(sorted(bad.items())),
    }


class Gate:
    """Adds up the figures of a shard's chunks, those that earlier attempts committed included.

    Args:
        good: the name of the figure that counts good outputs, such as `parsed`.
        setting: the name of the setting that holds `least`, for the message.
        least: the share of good outputs, in [0, 1], under which the shard stops.
        after: outputs before the gate looks.
    """

    def __init__(self, context: StageContext, good: str, setting: str, *, least: float, after: int) -> None:
        self._context = context
        self._good, self._setting, self._least, self._after = good, setting, least, after
        self._outputs, self._kept, self._reasons = 0, 0, Counter[str]()
        for chunk in context.writer.committed().values():
            self._count(chunk.figures)
        self._check()

    def add(self, figures: dict[str, Any]) -> None:
        """Counts a chunk that was just committed.

        Raises:
            StageError: GATE when at least `after` outputs are in and fewer than the share `least` are good.
        """
        self._count(figures)
        self._context.meter.count(rows_in=figures["outputs"], rows_kept=figures[self._good])
        self._check()

    @property
    def figures(self) -> dict[str, Any]:
        """The sum of what was counted."""
        return {
            "outputs": self._outputs,
            self._good: self._kept,
            "reasons": dict(sorted(self._reasons.items())),
        }

    def _count(self, figures: dict[str, Any]) -> None:
        self._outputs += figures["outputs"]
        self._kept += figures[self._good]
        self._reasons.update(figures["reasons"])

    def _check(self) -> None:
        if self._outputs < max(1, self._after) or self._kept >= self._least * self._outputs:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._reasons.most_common())
        raise gate(
            f"{self._kept} of {self._outputs} outputs ({self._kept / self._outputs:.1%}) are {self._good}, and "
            f"{self._setting} asks for {self._least:.0%}: {reasons}",
            where=self._context.task.node,
            hint=f"what is committed stays; try another template, prefill or teacher, or lower {self._setting}",
        )
