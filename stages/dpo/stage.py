"""dpo: teacher, pairs → a teacher trained on them, as a Hugging Face folder."""

from __future__ import annotations

import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.training.launch import train

COLUMNS = ["prompt", "chosen", "rejected"]


def run(context: StageContext) -> None:
    pairs = context.table("pairs")
    sides = {
        name: pairs.filter(pc.equal(pairs["split"], split)).select(COLUMNS)
        for name, split in (("train", "train"), ("heldout", "heldout"))
    }
    train(context, context.model("teacher"), sides)
