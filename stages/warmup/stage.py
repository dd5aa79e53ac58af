"""warmup: student, responses → the student's θ, m, v after a short training (see stages/influence/state.py).

The student may be what an earlier warm-up left (`iterate_student: previous`): its weights, and fresh moments.
"""

from __future__ import annotations

import pyarrow.compute as pc

from stages.contract.context import StageContext
from stages.training.launch import train
from stages.training.rows import usable_rows


def run(context: StageContext) -> None:
    rows = context.table("rows")
    train(
        context,
        context.model("student"),
        {"train": usable_rows(rows.filter(pc.equal(rows["split"], "warmup")))},
    )
