"""A source's usable rows, each once, and what was dropped with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from stages.contract.canonical import content_id
from stages.contract.errors import StageError, bad_data
from stages.prepare.clean import row_texts, same_instruction
from stages.prepare.read import BadRow, RawRow
from stages.prepare.settings import Overlap, Source

SHOWN = 5


@dataclass(frozen=True)
class Row:
    """A clean row. `key` is what makes two instructions the same; `line` is where it stood."""

    id: str
    instruction: str
    response: str | None
    key: str
    line: int


@dataclass
class Collected:
    """Rows of one source (`seeds` or `reference`) and its dropped rows, as the `dropped` table has them."""

    name: str
    read: int = 0
    rows: list[Row] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, line: int, reason: str, detail: str, instruction: str | None = None) -> None:
        self.dropped.append(
            {
                "source": self.name,
                "line": line,
                "reason": reason,
                "detail": detail,
                "instruction": instruction,
            }
        )


def collect(
    name: str,
    source: Source,
    rows: Iterable[RawRow | BadRow],
    *,
    response_needed: bool,
    on_bad_row: Literal["refuse", "drop"],
) -> Collected:
    """Cleans the rows and drops duplicates: of rows with the same instruction the first stays.

    Raises:
        StageError: BAD_DATA for the first unusable row (with `refuse`), for a source without usable rows, and
            for a response field that was named but that no row has.
    """
    found = Collected(name)
    seen: dict[str, int] = {}
    for raw in rows:
        found.read += 1
        if isinstance(raw, BadRow):
            texts: tuple[str, str | None] | BadRow = raw
        else:
            texts = row_texts(raw, source.fields, response_needed=response_needed)
        if isinstance(texts, BadRow):
            if on_bad_row == "refuse":
                raise _refusal(name, source, texts)
            found.drop(texts.line, texts.reason, texts.detail)
            continue
        instruction, response = texts
        key = same_instruction(instruction)
        if key in seen:
            found.drop(raw.line, "duplicate", f"the same instruction stands in line {seen[key]}", instruction)
            continue
        seen[key] = raw.line
        found.rows.append(Row(content_id(instruction, response), instruction, response, key, raw.line))
    _check_something_is_left(found, source)
    return found


def settle_overlap(seeds: Collected, reference: Collected, overlap: Overlap, uri: str) -> set[str]:
    """Removes seeds that are also reference rows, refuses them, or returns the keys of those that are kept.

    Data made from such a seed are measured on the very row that they imitate.

    Raises:
        StageError: BAD_DATA naming the rows.
    """
    lines = {row.key: row.line for row in reference.rows}
    shared = [row for row in seeds.rows if row.key in lines]
    if shared and overlap == "refuse":
        named = "; ".join(
            f"line {lines[row.key]} is seed line {row.line}: {row.instruction[:60]!r}" for row in shared[:SHOWN]
        )
        more = f"; and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        raise bad_data(
            f"{len(shared)} of {len(reference.rows)} reference rows are also seeds ({named}{more})",
            where=uri,
            hint="prepare.overlap: drop leaves those seeds out; keep is for an ablation with test seeds",
        )
    if overlap == "keep":
        return {row.key for row in shared}
    for row in shared:
        seeds.drop(row.line, "in_reference", f"reference line {lines[row.key]}", row.instruction)
    seeds.rows = [row for row in seeds.rows if row.key not in lines]
    if not seeds.rows:
        raise bad_data("every seed is also a reference row", where=uri, hint="name other seeds")
    return set()


def _refusal(name: str, source: Source, row: BadRow) -> StageError:
    return bad_data(
        row.detail,
        where=f"{source.shown} line {row.line}",
        hint=f"correct the row or prepare.{name}.fields; prepare.on_bad_row: drop leaves such rows out",
    )


def _check_something_is_left(found: Collected, source: Source) -> None:
    if not found.read:
        raise bad_data(f"the {found.name} are empty: no row in the file", where=source.shown)
    if not found.rows:
        raise bad_data(
            f"none of {found.read} rows is usable; the first: {found.dropped[0]['detail']}", where=source.shown
        )
    if "response" in source.fields.model_fields_set and all(row.response is None for row in found.rows):
        raise bad_data(f"no row has text in the field {source.fields.response!r}", where=source.shown)
