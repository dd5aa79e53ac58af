"""One colour for each branch of the run, the same in every chart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Branches:
    """The branch whose data and student the run is for, the one that it is compared with first, and the one whose data
    the teacher wrote before any training: a recipe may have neither of the two."""

    main: str
    baseline: str
    unmodified: str

    def colour(self, branch: str) -> str:
        """A colour letter: `main` and `baseline` have their own, iterations and the untrained student are grey."""
        return {self.main: "b", self.baseline: "c"}.get(branch, "a")
