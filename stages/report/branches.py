"""One colour for each branch of the run, the same in every chart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Branches:
    """The branch whose data and student the run is for, and the one that it is compared with."""

    main: str
    baseline: str

    def colour(self, branch: str) -> str:
        """A colour letter: `main` and `baseline` have their own, iterations and the untrained student are grey."""
        return {self.main: "b", self.baseline: "c"}.get(branch, "a")
