"""What a stage's process leaves out of its start.

transformers imports scikit-learn wherever it is installed, for assisted generation and GLUE's metrics, which no stage
uses; with it come parts of SciPy that nothing else asks for: a fifth of the time that a stage needs to begin.
"""

from __future__ import annotations

import sys

_SKLEARN = "sklearn"


def leave_out_sklearn() -> None:
    """From here on this process has no scikit-learn, unless it is imported already."""
    sys.modules.setdefault(_SKLEARN, None)  # type: ignore[arg-type]


def bring_back_sklearn() -> None:
    """Before work that may ask for it."""
    if sys.modules.get(_SKLEARN, ...) is None:
        del sys.modules[_SKLEARN]
