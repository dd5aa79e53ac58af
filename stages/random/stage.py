"""random: candidates → scores that know nothing of them.

With the input `scores` (another signal's) an instruction gets the scores of an instruction drawn by chance, all of
them, in an order by chance: whatever the pairs depend on (spread, signs, ties, agreement between responses) is as in
the original, and only what it says about the instruction and its responses is gone. The giver is of the same task
where rows have one, as pairs are. Without it scores are standard normal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.generation.seeds import random_for
from stages.random.settings import RandomSettings
from stages.signals.rows import COLUMNS, Row, candidates, scored

_NAMES = ("response_id", "instruction_id", "prompt_id")
_KEPT = ("score", "stderr", "noise", "tie")
_TASK = "task"
_Pool = dict[str | None, dict[str, list[Row]]]  # scored rows by task (None: there are no tasks) and instruction


def run(context: StageContext) -> None:
    settings: RandomSettings = context.settings
    scores = context.table("scores") if context.has("scores") else None
    task = (_TASK,) if scores is not None and _TASK in scores.column_names else ()
    listed: list[Row] = candidates(context, columns=(*_NAMES, *task)).to_pylist()
    context.progress.begin(len(listed), phase="drawing")
    with context.meter.phase("compute"):
        if scores is None:
            rows = _normal(listed, settings.seed)
        else:
            pool = _pool(scores.select([*_NAMES, *_KEPT, *task]).to_pylist())
            if not pool:
                raise bad_data("there is no score to shuffle", where=f"{context.task.node}: scores")
            rows = _shuffled(listed, pool, settings.seed)
    context.meter.count(rows_in=len(rows), rows_kept=sum(row["score"] is not None for row in rows))
    context.progress.advance(len(rows))
    context.publish(
        tables={"rows": make_table(rows, COLUMNS)}, figures={"method": "normal" if scores is None else "shuffled"}
    )


def _normal(listed: list[Row], seed: int) -> list[Row]:
    """Each response's score by its id alone."""
    return [scored(row, "normal", random_for("random", seed, row["response_id"]).gauss(0, 1)) for row in listed]


def _pool(scores: list[Row]) -> _Pool:
    """The scored rows of every instruction that has some."""
    pool: _Pool = {}
    for row in scores:
        if row["score"] is not None:
            pool.setdefault(row.get(_TASK), {}).setdefault(row["instruction_id"], []).append(row)
    return pool


def _shuffled(listed: list[Row], pool: _Pool, seed: int) -> list[Row]:
    """Where the candidates are the pool's own, this is a permutation of the instructions of each task."""
    takers: defaultdict[str | None, set[str]] = defaultdict(set)
    for row in listed:
        takers[row.get(_TASK)].add(row["instruction_id"])
    given: dict[str, list[Row]] = {}
    for task, names in takers.items():
        givers = _by_chance(pool.get(task, ()), "giver", seed)
        for number, taker in enumerate(_by_chance(names, "taker", seed) if givers else ()):
            scores = pool[task][givers[number % len(givers)]]
            # Response k is the same way of reasoning in every question of a task: its place says something.
            given[taker] = random_for("order", seed, taker).sample(scores, len(scores))
    taken: dict[str, int] = defaultdict(int)
    rows = []
    for row in listed:
        name = row["instruction_id"]
        if name not in given:
            rows.append(scored(row, "shuffled", None, reason="no score of its task to shuffle"))
            continue
        score = given[name][taken[name] % len(given[name])]
        taken[name] += 1
        rows.append(scored(row, "shuffled", **{kept: score[kept] for kept in _KEPT}))
    return rows


def _by_chance(ids: Iterable[str], what: str, seed: int) -> list[str]:
    """Ids in an order that depends on nothing but them and the seed."""
    return sorted(ids, key=lambda each: (random_for(what, seed, each).random(), each))
