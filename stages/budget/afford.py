"""How many of its rows each branch may train on, so that all have spent the same.

A branch's rows come in the order of a hash of their ids, and a budget takes the first of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Budget:
    """`amount` in `unit`, and the rows by branch that it pays for."""

    unit: str
    amount: float
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Spent:
    """Device seconds of a branch: `before` its final data, and of `final` for all of its `rows`."""

    before: float
    final: float
    rows: int

    @property
    def total(self) -> float:
        return self.before + self.final

    def rows_for(self, amount: float) -> int:
        """Rows that `amount` pays for, the work before them included; all where a row costs nothing."""
        if amount < self.before:
            return 0
        if self.final <= 0:
            return self.rows
        # A hair more than the quotient: the branch that sets the budget is to keep its last row.
        return min(self.rows, int(self.rows * (amount - self.before) / self.final + 1e-9))


def equal_rows(tokens: Mapping[str, Sequence[int]]) -> Budget:
    """As many rows as the branch with the fewest has."""
    fewest = min(map(len, tokens.values()))
    return Budget("rows", fewest, dict.fromkeys(tokens, fewest))


def equal_tokens(tokens: Mapping[str, Sequence[int]]) -> Budget:
    """As many response tokens as the branch with the fewest has; a row counts whole or not at all."""
    least = min(map(sum, tokens.values()))
    rows = {name: bisect_right(list(accumulate(each)), least) for name, each in tokens.items()}
    return Budget("tokens", least, rows)


def equal_seconds(spent: Mapping[str, Spent]) -> Budget:
    """As many device seconds as the branch that spent the least."""
    least = min(each.total for each in spent.values())
    return Budget("device_seconds", least, {name: each.rows_for(least) for name, each in spent.items()})
