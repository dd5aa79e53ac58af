"""dpo: teacher, pairs → a teacher trained on them, as a Hugging Face folder."""

from __future__ import annotations

import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.training.launch import train

COLUMNS = ["prompt", "chosen", "rejected", "kind"]


def run(context: StageContext) -> None:
    pairs = context.table("pairs")
    columns = [name for name in COLUMNS if name in pairs.column_names]
    sides = {
        name: pairs.filter(pc.equal(pairs["split"], split)).select(columns)
        for name, split in (("train", "train"), ("heldout", "heldout"))
    }
    train(context, context.model("teacher"), sides)
