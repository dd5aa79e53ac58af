"""The methods that a run can compare: each is a signal and what is done with it.

Names are those of the papers: Montessori-Instruct (arXiv 2410.14208) and what it compares itself with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Signal = Literal["influence", "judge", "loss", "random"]
Update = Literal["dpo", "reseed"]
Baseline = Literal["self-instruct", "self-reward", "llm2llm", "bootstrap", "random", "no-finetuning"]
Scored = Signal | Literal["incontext"]  # ARTE's own is for no other method
SIGNALS: tuple[Signal, ...] = get_args(Signal)

TAILORED = "tailored"  # the branch that a recipe is about
SELF_INSTRUCT: Baseline = "self-instruct"
UNTRAINED = "no-finetuning"

# Signals whose scores have no sign: 0 says neither good nor bad.
UNSIGNED: tuple[Signal, ...] = ("judge", "loss")

# Signals of which one score has no standard error; influence has one over reference rows, a judge over its ratings.
WITHOUT_STDERR: tuple[Signal, ...] = ("loss", "random")

# Why ARTE cannot be compared with some: its drafts are questions whose right answers nobody knows.
NOT_OF_TASKS: dict[str, str] = {
    "llm2llm": "it shows the teacher scored drafts as seeds, and a task's seeds are questions with known answers",
    "bootstrap": "it scores by the loss on reference rows, and tasks have none",
}

# What ARTE's drafts can be scored by beside in context: influence and loss start from a warm-up that it does not have.
SIGNALS_OF_TASKS: tuple[Signal, ...] = ("judge", "random")


@dataclass(frozen=True)
class Method:
    """A signal, and whether DPO trains the teacher on it or its best instructions become seeds."""

    signal: Scored
    update: Update


def own_method(kind: str, signal: Signal, update: Update) -> Method:
    """The recipe's own: `kind` is its `method`."""
    return Method("incontext", "dpo") if kind == "arte" else Method(signal, update)


def method_of(baseline: str, own: Method) -> Method | None:
    """What a branch of `compare` does; None where it generates with the teacher as it came.

    `random` is the control of the recipe's own method: the same update on scores that say nothing.
    """
    return {
        "self-reward": Method("judge", "dpo"),
        "llm2llm": Method("loss", "reseed"),
        "bootstrap": Method("influence", "reseed"),
        "random": Method("random", own.update),
    }.get(baseline)
