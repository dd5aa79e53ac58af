"""The one split of the reference rows. Nothing else in the project splits them again."""

from __future__ import annotations

from collections.abc import Iterable

from stages.contract.canonical import digest
from stages.contract.errors import bad_data
from stages.prepare.collect import Row


def split_reference(rows: Iterable[Row], probe_share: float, uri: str) -> tuple[list[Row], list[Row]]:
    """(probe, held-out) rows. A row's side follows from its own instruction alone: added rows move no other.

    So the sizes are near `probe_share`, not exactly it.

    Raises:
        StageError: BAD_DATA when one side is empty.
    """
    probe: list[Row] = []
    heldout: list[Row] = []
    for row in rows:
        (probe if _position(row) < probe_share else heldout).append(row)
    if not probe or not heldout:
        raise bad_data(
            f"{len(probe)} probe rows and {len(heldout)} held-out rows: both sides need some",
            where=uri,
            hint="give more reference rows, or another prepare.probe_share",
        )
    return probe, heldout


def _position(row: Row) -> float:
    """A number in [0, 1) that depends on the instruction alone."""
    return int(digest(["reference side", row.key])[:13], 16) / 16**13
