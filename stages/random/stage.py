"""random: candidates → scores that know nothing of them.

With the input `scores` (another signal's) an instruction gets the scores of an instruction drawn by chance, all of
them together: whatever the pairs depend on (spread, signs, ties, agreement between responses) is as in the original,
and only what it says about the instruction is gone. Without it scores are standard normal.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.generation.seeds import random_for
from stages.random.settings import RandomSettings
from stages.signals.rows import COLUMNS, Row, candidates, scored

_KEPT = ("score", "stderr", "noise", "tie")


def run(context: StageContext) -> None:
    settings: RandomSettings = context.settings
    names = ("response_id", "instruction_id", "prompt_id")
    listed: list[Row] = candidates(context, columns=names).to_pylist()
    context.progress.begin(len(listed), phase="drawing")
    with context.meter.phase("compute"):
        shuffles = context.has("scores")
        rows = _shuffled(listed, _pool(context), settings.seed) if shuffles else _normal(listed, settings.seed)
    context.meter.count(rows_in=len(rows), rows_kept=len(rows))
    context.progress.advance(len(rows))
    context.publish(
        tables={"rows": make_table(rows, COLUMNS)}, figures={"method": "shuffled" if shuffles else "normal"}
    )


def _normal(listed: list[Row], seed: int) -> list[Row]:
    """Each response's score by its id alone."""
    return [scored(row, "normal", random_for("random", seed, row["response_id"]).gauss(0, 1)) for row in listed]


def _pool(context: StageContext) -> dict[str, list[Row]]:
    """The scored rows of every instruction that has some, by id."""
    pool: defaultdict[str, list[Row]] = defaultdict(list)
    for row in context.table("scores", columns=("response_id", "instruction_id", *_KEPT)).to_pylist():
        if row["score"] is not None:
            pool[row["instruction_id"]].append(row)
    if not pool:
        raise bad_data("there is no score to shuffle", where=f"{context.task.node}: scores")
    return pool


def _shuffled(listed: list[Row], pool: dict[str, list[Row]], seed: int) -> list[Row]:
    """Where the candidates are the pool's own, this is a permutation of its instructions."""
    givers = _by_chance(pool, "giver", seed)
    takers = _by_chance({row["instruction_id"] for row in listed}, "taker", seed)
    given = {taker: pool[givers[number % len(givers)]] for number, taker in enumerate(takers)}
    taken: dict[str, int] = defaultdict(int)
    rows = []
    for row in listed:
        scores = given[row["instruction_id"]]
        score = scores[taken[row["instruction_id"]] % len(scores)]
        taken[row["instruction_id"]] += 1
        rows.append(scored(row, "shuffled", **{name: score[name] for name in _KEPT}))
    return rows


def _by_chance(ids: Any, what: str, seed: int) -> list[str]:
    """Ids in an order that depends on nothing but them and the seed."""
    return sorted(ids, key=lambda each: (random_for(what, seed, each).random(), each))
