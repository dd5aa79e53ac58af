"""Publishes the numbers from 0."""

from __future__ import annotations

import pyarrow as pa

from stages.contract.context import StageContext


def run(context: StageContext) -> None:
    context.publish(tables={"rows": pa.table({"number": pa.array(range(context.settings.count), pa.int64())})})
