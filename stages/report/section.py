"""What a section of the page consists of; the template knows how to show each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.report.draw.svg import Svg


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption. `narrow` is the same drawing for a narrow screen, if it needs another."""

    name: str
    svg: Svg
    caption: str
    narrow: Svg | None = None
    kind: str = "figure"


@dataclass(frozen=True)
class Table:
    """A table; columns named in `numeric` are aligned to the right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    foot: Sequence[str] = ()
    kind: str = "table"


@dataclass(frozen=True)
class Pair:
    """A preference pair shown in full."""

    title: str
    chosen: str
    rejected: str
    chosen_score: str
    rejected_score: str
    kind: str = "pair"


@dataclass(frozen=True)
class Section:
    """A part of the page. `numbers` go into summary.json; a section without blocks says why in `text`."""

    id: str
    title: str
    text: Sequence[str]
    blocks: Sequence[Figure | Table | Pair] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure]:
        return [block for block in self.blocks if isinstance(block, Figure)]


def left_out(id: str, title: str, why: str) -> Section:
    """A section of a run that has nothing for it."""
    return Section(id, title, [why])
