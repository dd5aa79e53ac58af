"""What a person sees while a run goes on: a line a node on a terminal, a line an event elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flow.decide import State
from flow.graph import Graph
from flow.local import Snapshot
from stages.contract.progress import ProgressRecord

_MARKS = {
    State.DONE: ("✓", "green"),
    State.RUNNING: ("▶", "cyan"),
    State.SUSPENDED: ("▷", "yellow"),
    State.READY: ("·", "white"),
    State.WAITING: ("·", "bright_black"),
    State.FAILED: ("✗", "red"),
    State.BLOCKED: ("–", "bright_black"),
    State.STOPPED: ("–", "yellow"),
}


class Screen:
    """Shows snapshots of a run; use as a context manager."""

    def __init__(self, graph: Graph, console: Console) -> None:
        self._graph = graph
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._told: dict[str, State] = {}

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        if self._live:
            self._live.update(_table(self._graph, snapshot))
        else:
            self._tell(snapshot)

    def _tell(self, snapshot: Snapshot) -> None:
        for name in snapshot.decision.states:
            state = _shown(snapshot, name)
            if self._told.get(name) == state:
                continue
            self._told[name] = state
            if state in (State.WAITING, State.READY, State.BLOCKED):
                continue
            seconds = snapshot.times[name].seconds
            spent = f" in {seconds:.0f} s" if state is State.DONE and seconds and name not in snapshot.cached else ""
            cached = " (cached)" if name in snapshot.cached else ""
            self._console.print(f"{name}: {state}{cached}{spent}", highlight=False, soft_wrap=True)


def _table(graph: Graph, snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    for column, justify in (
        ("", "left"),
        ("node", "left"),
        ("shards", "right"),
        ("progress", "left"),
        ("time", "right"),
    ):
        table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=True)
    for name in graph.nodes:
        state = _shown(snapshot, name)
        mark, style = _MARKS[state]
        published, shards = snapshot.shards[name]
        seconds = snapshot.times[name].seconds if name not in snapshot.cached else None
        table.add_row(
            Text(mark, style=style),
            Text(name, style=style),
            f"{published}/{shards}" if shards > 1 and state is not State.DONE else "",
            _doing(state, name in snapshot.cached, snapshot.progress.get(name, ())),
            duration(seconds),
        )
    return table


def _shown(snapshot: Snapshot, name: str) -> State:
    """A node's state as a person sees it: what waits for a free slot does not run yet."""
    state = snapshot.decision.states[name]
    return State.READY if state is State.RUNNING and snapshot.times[name].started is None else state


def _doing(state: State, cached: bool, records: Iterable[ProgressRecord]) -> str:
    if cached:
        return "cached"
    if state is not State.RUNNING:
        return "" if state in (State.WAITING, State.READY, State.DONE) else str(state)
    listed = list(records)
    if not listed:
        return "starting"
    done, total = sum(each.done for each in listed), sum(each.total for each in listed)
    if not total:
        return listed[0].phase
    rate = sum(each.rate or 0.0 for each in listed)
    left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
    speed = f", {rate:.3g}/s" if rate else ""
    return f"{listed[0].phase} {done}/{total} {listed[0].unit}{speed}{left}"


def duration(seconds: float | None) -> str:
    """Seconds as a person reads them: 42s, 3m05s, 2h10m."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
