"""sft: student, responses → a student trained on them, as a Hugging Face folder."""

from __future__ import annotations

from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.training.launch import train
from stages.training.rows import usable_rows


def run(context: StageContext) -> None:
    wanted: int | None = context.settings.rows
    rows = usable_rows(context.table("rows"))
    if wanted is not None and rows.num_rows < wanted:
        raise bad_data(
            f"{wanted} rows were asked for and {rows.num_rows} are usable",
            where="rows",
            hint="generate more, or lower rows",
        )
    # Which of them fit max_tokens is known once they are tokenised: the training takes the first so many that do.
    train(context, context.model("student"), {"train": rows})
