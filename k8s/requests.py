"""Requests of a run's spec to make something again: each is carried out once, by whichever controller."""

from __future__ import annotations

from flow.graph import Graph
from flow.manage import forget
from flow.resolve import Resolver
from k8s.run import Rerun, Run
from stages.contract.canonical import canonical_json
from stages.contract.clock import stamp
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store


class Requests:
    """Those of one run, in their order."""

    def __init__(self, run: Run, graph: Graph, store: Store) -> None:
        self._run = run
        self._graph = graph
        self._store = store
        self._done: dict[str, bool] = {}

    @property
    def waiting(self) -> bool:
        return any(not self._done.get(each.id) for each in self._run.rerun)

    @property
    def done(self) -> tuple[str, ...]:
        return tuple(each.id for each in self._run.rerun if self._done.get(each.id))

    def next(self) -> Rerun | None:
        """The first that was not carried out before."""
        for request in self._run.rerun:
            if request.id not in self._done:
                self._done[request.id] = self._store.size(self._key(request)) is not None
            if not self._done[request.id]:
                return request
        return None

    def concerned(self, request: Rerun) -> tuple[str, ...]:
        """The nodes that no Job may work on while it is carried out."""
        if request.node is None or request.node not in self._graph.nodes:
            return ()
        return self._graph.downstream(request.node) if request.down else (request.node,)

    def carry_out(self, request: Rerun, resolver: Resolver) -> tuple[str, bool]:
        """Forgets what is to be made again.

        Returns:
            What was done, and whether that took anything out of what the resolver knows.

        Raises:
            StageError: STORE; the request is then carried out by a later call.
        """
        text, forgot = self._forget(request, resolver)
        self._store.put(self._key(request), canonical_json({"id": request.id, "done": stamp(), "result": text}))
        self._done[request.id] = True
        return text, forgot

    def _key(self, request: Rerun) -> str:
        return f"runs/{self._run.name}/requests/{request.id}.json"

    def _forget(self, request: Rerun, resolver: Resolver) -> tuple[str, bool]:
        if request.node is None:
            return "carried on, with earlier failures forgotten", False
        try:
            count = forget(resolver, request.node, request.shards or (), request.down)
        except StageError as error:
            if error.code != ExitCode.BAD_SETTINGS:
                raise
            return f"request {request.id} cannot be carried out: {error}", False
        below = " with all that is made from it" if request.down else ""
        return f"{request.node} is made again{below}" + ("" if count else ": there was nothing of it yet"), True
