"""Which of the responses are trained on, and in which order they are numbered."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ["instruction", "response"]


def usable_rows(responses: pa.Table) -> pa.Table:
    """The usable rows' instruction and response, by response_id: an order that no sharding or resuming changes."""
    usable = responses.filter(pc.equal(responses["usable"], True))
    return usable.sort_by("response_id").select(COLUMNS)
