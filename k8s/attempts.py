"""The attempts at one run's nodes, as the store tells of them: tasks, ends, and from which attempt on they count.

    runs/RUN/tasks/NODE-3.json     attempt 3 was decided; whether its Job was ever created, the API knows
    runs/RUN/outcomes/NODE/003/…   how its shards ended
    runs/RUN/budget.json           which attempts count against the retry limit: those since the run's spec last changed

All of it can be read again: a controller that starts anew knows what the last one knew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from flow.decide import Ended
from flow.record import read_end, write_end
from flow.runstate import split_attempt
from stages.contract.canonical import canonical_json
from stages.contract.outcome import outcome_prefix
from stages.contract.store import Store
from stages.contract.task import Task, task_key


@dataclass
class NodeAttempts:
    """One open node's attempts.

    Attributes:
        latest: the number of the latest task; 0 without one.
        settled: attempts up to this number are over and in `ended`.
        ended: shards that attempts within the budget left unpublished.
        tasks: the tasks read so far.
    """

    latest: int = 0
    settled: int = 0
    ended: list[Ended] = field(default_factory=list)
    tasks: dict[int, Task | None] = field(default_factory=dict)


class Attempts:
    """Attempts at every node of one run; opened once for each state of the run's spec (`epoch`)."""

    def __init__(self, store: Store, run: str, epoch: str) -> None:
        self._store = store
        self._run = run
        latest = _latest(store, run)
        floors = self._floors(epoch, latest)
        self._nodes = {
            node: NodeAttempts(number, min(floors.get(node, 1) - 1, number)) for node, number in latest.items()
        }

    def of(self, node: str) -> NodeAttempts:
        return self._nodes.setdefault(node, NodeAttempts())

    def task(self, node: str, attempt: int) -> Task | None:
        """An attempt's task; None where there is none that can be read."""
        known = self.of(node).tasks
        if attempt not in known:
            data = self._store.get_or_none(task_key(self._run, node, attempt))
            try:
                known[attempt] = Task.model_validate_json(data) if data is not None else None
            except ValidationError:
                known[attempt] = None
        return known[attempt]

    def claim(self, task: Task) -> Task:
        """Writes a task, unless an equal one waits under its number already: two controllers decide alike.

        A task is never overwritten, since pods may be reading it: where another one has the number, the next is taken.
        """
        while not self._store.put_if_absent(task.key, task.model_dump_json(indent=1).encode()):
            self.of(task.node).tasks.pop(task.attempt, None)
            found = self.task(task.node, task.attempt)
            if found is not None and found.model_copy(update={"shards": task.shards}) == task:
                task = found
                break
            task = task.model_copy(update={"attempt": task.attempt + 1})
        known = self.of(task.node)
        known.latest = max(known.latest, task.attempt)
        known.tasks[task.attempt] = task
        return task

    def heard_of(self, node: str, attempt: int) -> frozenset[int]:
        """The shards of an attempt that have left an outcome, by one listing."""
        prefix = f"{outcome_prefix(self._run, node, attempt)}shard-"
        names = (key.removeprefix(prefix).removesuffix(".json") for key, _ in self._store.list(prefix))
        return frozenset(int(name) for name in names if name.isdecimal())

    def end(self, node: str, attempt: int, shard: int) -> Ended | None:
        return read_end(self._store, self._run, node, attempt, shard)

    def record(self, node: str, ended: Ended) -> None:
        """Writes down an end that the stage itself could not."""
        write_end(self._store, self._run, node, ended)

    def settle(self, node: str, attempt: int, ended: Iterable[Ended]) -> None:
        """An attempt is over; `ended` are the shards that it left unpublished."""
        known = self.of(node)
        known.ended = [each for each in known.ended if each.attempt != attempt] + list(ended)
        known.settled = max(known.settled, attempt)
        for number in [each for each in known.tasks if each < attempt]:
            del known.tasks[number]

    def _floors(self, epoch: str, latest: dict[str, int]) -> dict[str, int]:
        """From which attempt on each node's attempts count: written once for each epoch, by whoever sees it first."""
        key = f"runs/{self._run}/budget.json"
        found = self._store.get_json(key)
        if isinstance(found, dict) and found.get("epoch") == epoch:
            return {str(node): int(number) for node, number in found.get("from", {}).items()}
        floors = {node: number + 1 for node, number in latest.items()}
        self._store.put(key, canonical_json({"epoch": epoch, "from": floors}))
        return floors


def _latest(store: Store, run: str) -> dict[str, int]:
    """The number of each node's latest task, by one listing."""
    prefix = f"runs/{run}/tasks/"
    found: dict[str, int] = {}
    for key, _ in store.list(prefix):
        if each := split_attempt(key.removeprefix(prefix).removesuffix(".json")):
            found[each[0]] = max(found.get(each[0], 0), each[1])
    return found
