"""What a piece of work cost: seconds by phase, device seconds, tokens, rows in and kept. The report adds them up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict


class Ledger(BaseModel):
    """Costs of one chunk, shard or artifact. Seconds are wall clock; device seconds are compute seconds times
    devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: dict[str, float] = {}  # by phase: load, compute, wait, upload
    device_seconds: float = 0.0
    tokens: int = 0
    rows_in: int = 0
    rows_kept: int = 0
    peak_memory_bytes: int = 0

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def add_ledgers(ledgers: Iterable[Ledger]) -> Ledger:
    """The sum of costs; memory is the largest of the parts."""
    seconds: dict[str, float] = {}
    device_seconds, tokens, rows_in, rows_kept, peak = 0.0, 0, 0, 0, 0
    for each in ledgers:
        for phase, value in each.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
        device_seconds += each.device_seconds
        tokens += each.tokens
        rows_in += each.rows_in
        rows_kept += each.rows_kept
        peak = max(peak, each.peak_memory_bytes)
    return Ledger(
        seconds=seconds,
        device_seconds=device_seconds,
        tokens=tokens,
        rows_in=rows_in,
        rows_kept=rows_kept,
        peak_memory_bytes=peak,
    )


class Meter:
    """Collects one ledger while work goes on."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._device_seconds = 0.0
        self._counts = {"tokens": 0, "rows_in": 0, "rows_kept": 0}
        self._peak = 0

    @contextmanager
    def phase(self, name: str, *, devices: int = 0) -> Iterator[None]:
        """Adds the wall-clock seconds of a block to a phase; `devices` > 0 counts them as device seconds too."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + spent
            self._device_seconds += spent * devices

    def count(self, *, tokens: int = 0, rows_in: int = 0, rows_kept: int = 0) -> None:
        self._counts["tokens"] += tokens
        self._counts["rows_in"] += rows_in
        self._counts["rows_kept"] += rows_kept

    def peak(self, memory_bytes: int) -> None:
        self._peak = max(self._peak, memory_bytes)

    def take(self) -> Ledger:
        """What was collected since the last call."""
        taken = Ledger(
            seconds=self._seconds,
            device_seconds=self._device_seconds,
            peak_memory_bytes=self._peak,
            **self._counts,
        )
        self.__init__()  # type: ignore[misc]
        return taken
