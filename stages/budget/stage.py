"""budget: the usable rows of every branch → those of one branch that the common budget pays for.

Inputs: `own.NAME` and `branch.NAME` are responses; for device seconds `before.NAME.NODE` is everything that the
branch's teacher was made from, `final.NAME.NODE` its final instructions and responses.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from stages.budget.afford import Budget, Spent, equal_rows, equal_seconds, equal_tokens
from stages.budget.settings import OWN, BudgetSettings
from stages.contract.context import StageContext
from stages.contract.errors import bad_settings, gate


def run(context: StageContext) -> None:
    settings: BudgetSettings = context.settings
    own = context.names(OWN)[0]
    name = own.removeprefix(OWN)
    branches = [each.removeprefix("branch.") for each in context.names("branch.")]
    context.progress.begin(len(branches), unit="branches", phase="counting")
    with context.meter.phase("compute"):
        usable = {each: _usable(context, f"branch.{each}") for each in branches}
        budget = _budget(context, settings, {each: rows["output_tokens"].to_pylist() for each, rows in usable.items()})
    allowed = budget.rows[name]
    if allowed < settings.least_rows:
        raise gate(
            f"{budget.amount:,.0f} {budget.unit.replace('_', ' ')} leave {name} {allowed} of {usable[name].num_rows} "
            f"rows, and {settings.least_rows} are asked for",
            where="budget.match",
            hint=f"give the branch that sets the budget more data (budget.prompts: {{{_cheapest(budget, usable)}: N}}),"
            " or match rows",
        )
    rows = _usable(context, own, columns=None).slice(0, allowed)
    context.meter.count(rows_in=usable[name].num_rows, rows_kept=rows.num_rows)
    context.progress.update(len(branches))
    context.publish(
        tables={"rows": rows},
        figures={
            "match": settings.match,
            "unit": budget.unit,
            "amount": budget.amount,
            "rows": dict(budget.rows),
            "usable": {each: rows.num_rows for each, rows in usable.items()},
        },
    )


def _usable(context: StageContext, name: str, columns: Iterable[str] | None = ("output_tokens",)) -> pa.Table:
    """Usable rows by response_id, a hash: an order that no sharding changes, and the one that `sft` numbers them in."""
    wanted = None if columns is None else ["response_id", "usable", *columns]
    rows = context.table(name, columns=wanted)
    return rows.filter(pc.equal(rows["usable"], True)).sort_by("response_id")


def _budget(context: StageContext, settings: BudgetSettings, tokens: dict[str, list[int]]) -> Budget:
    if settings.match == "rows":
        return equal_rows(tokens)
    if settings.match == "tokens":
        return equal_tokens(tokens)
    if settings.match == "none":
        return Budget("rows", max(map(len, tokens.values())), {name: len(each) for name, each in tokens.items()})
    spent = {
        name: Spent(_seconds(context, f"before.{name}."), _seconds(context, f"final.{name}."), len(each))
        for name, each in tokens.items()
    }
    if not any(each.final for each in spent.values()):
        raise bad_settings(
            "no device seconds were spent on the final data: the teacher is on a server, whose devices are not ours",
            where="budget.match",
            hint="match rows or tokens",
        )
    return equal_seconds(spent)


def _seconds(context: StageContext, prefix: str) -> float:
    return sum(context.artifact(name).manifest.ledger.device_seconds for name in context.names(prefix))


def _cheapest(budget: Budget, usable: dict[str, pa.Table]) -> str:
    """The branch that keeps all of its rows: it sets the budget."""
    return next(name for name, rows in usable.items() if budget.rows[name] == rows.num_rows)
