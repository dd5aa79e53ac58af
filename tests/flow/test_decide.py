"""What `decide` says, as a table: a small graph, what is observed, what shall happen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from flow.decide import Decision, Ended, Finalise, Limits, Observed, Start, State, decide
from flow.graph import Edge, Graph, Node
from stages.contract.spec import StageSettings

A, B, C = "a", "b", "c"


def chain() -> Graph:
    """a → b → c, and d beside them."""
    needs = {A: (), B: (A,), C: (B,), "d": ()}
    nodes = {
        name: Node(name, "toy", StageSettings(), {each: Edge(each) for each in before}, 1, "run")
        for name, before in needs.items()
    }
    return Graph("run", nodes, {})


READY = Observed(resolved=True)
DONE = Observed(resolved=True, complete=True)


def ended(code: int, shard: int = 0, times: int = 1) -> tuple[Ended, ...]:
    return tuple(Ended(shard, attempt + 1, code, f"code {code}") for attempt in range(times))


@dataclass
class Case:
    name: str
    seen: dict[str, Observed]
    actions: tuple[object, ...] = ()
    states: dict[str, State] = field(default_factory=dict)
    ended: bool = False
    code: int = 0


CASES = [
    Case("what needs nothing starts", {A: READY}, (Start(A, (0,), 1),), {A: State.READY, B: State.WAITING}),
    Case(
        "what is done is left, its successor starts",
        {A: DONE, B: READY},
        (Start(B, (0,), 1),),
        {A: State.DONE},
    ),
    Case("what runs is waited for", {A: replace(READY, running=frozenset({0}))}, (), {A: State.RUNNING}),
    Case(
        "only the shards that are missing start",
        {A: replace(READY, shards=3, published=frozenset({1}), attempts=4)},
        (Start(A, (0, 2), 5),),
    ),
    Case(
        "failed shards wait for the others of their attempt",
        {A: replace(READY, shards=2, running=frozenset({0}), ended=ended(70, shard=1))},
        (),
        {A: State.RUNNING},
    ),
    Case(
        "published shards without a manifest are finalised",
        {A: replace(READY, shards=2, published=frozenset({0, 1}))},
        (Finalise(A),),
    ),
    Case(
        "an interruption is retried",
        {A: replace(READY, ended=ended(75, times=7), attempts=7)},
        (Start(A, (0,), 8),),
    ),
    Case(
        "an absent store is retried",
        {A: replace(READY, ended=ended(69, times=5), attempts=5)},
        (Start(A, (0,), 6),),
    ),
    Case("a bug is tried again", {A: replace(READY, ended=ended(70, times=3), attempts=3)}, (Start(A, (0,), 4),)),
    Case(
        "a bug is not tried for ever",
        {A: replace(READY, ended=ended(70, times=4), attempts=4), "d": READY},
        (Start("d", (0,), 1),),
        {A: State.FAILED, B: State.BLOCKED, C: State.BLOCKED},
        code=70,
    ),
    Case(
        "out of memory halves the micro-batch",
        {A: replace(READY, ended=ended(76, times=2), attempts=2)},
        (Start(A, (0,), 3, halvings=2),),
    ),
    Case(
        "bad settings stop the run at once",
        {A: replace(READY, ended=ended(64)), "d": READY},
        (),
        {A: State.FAILED, B: State.BLOCKED, "d": State.STOPPED},
        ended=True,
        code=64,
    ),
    Case(
        "a gate that is not met stops the run and keeps what is done",
        {A: DONE, B: replace(READY, ended=ended(66)), "d": READY},
        (),
        {A: State.DONE, B: State.FAILED, C: State.BLOCKED, "d": State.STOPPED},
        ended=True,
        code=66,
    ),
    Case(
        "bad data fail their shard and the others go on",
        {A: replace(READY, shards=2, ended=ended(65, shard=0), attempts=1), "d": DONE},
        (Start(A, (1,), 2),),
        {A: State.READY},
        code=65,
    ),
    Case(
        "bad data fail the node once the others are done",
        {A: replace(READY, shards=2, published=frozenset({1}), ended=ended(65, shard=0)), "d": DONE},
        (),
        {A: State.FAILED, B: State.BLOCKED, C: State.BLOCKED},
        ended=True,
        code=65,
    ),
    Case(
        "a result in the store wins over failures",
        {A: replace(DONE, ended=ended(70, times=9)), B: READY, "d": DONE},
        (Start(B, (0,), 1),),
        {A: State.DONE},
    ),
    Case(
        "a published shard wins over its failures",
        {A: replace(READY, shards=2, published=frozenset({0}), ended=ended(70, shard=0, times=9)), "d": DONE},
        (Start(A, (1,), 1),),
    ),
    Case("all done ends the run", {A: DONE, B: DONE, C: DONE, "d": DONE}, (), {C: State.DONE}, ended=True),
]


def look(case: Case) -> Decision:
    # Unless a case says otherwise `d` is done, so that the table shows only what the case is about.
    seen = {name: Observed() for name in chain().nodes} | {"d": DONE} | case.seen
    return decide(chain(), seen, Limits(retries=3))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decide(case: Case) -> None:
    found = look(case)
    assert found.actions == case.actions
    assert {name: found.states[name] for name in case.states} == case.states
    assert found.ended == case.ended
    assert found.exit_code == case.code


def test_only_what_is_wanted_and_what_it_needs_is_started() -> None:
    seen = {name: READY for name in chain().nodes} | {B: Observed(), C: Observed()}
    found = decide(chain(), seen, Limits(), wanted=[B])
    assert found.actions == (Start(A, (0,), 1),)
    done = {A: DONE, B: DONE, C: READY, "d": READY}
    assert decide(chain(), done, Limits(), wanted=[B]).ended


def test_deciding_twice_on_the_same_facts_says_the_same() -> None:
    for case in CASES:
        assert look(case) == look(case)
