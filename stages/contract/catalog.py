"""The list of stages. Settings are found by name and imported when asked for: they import pydantic and
nothing heavy.

A name with a dot is a stage of somebody else's: the importable package that holds its `settings.py` and
`stage.py`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from stages.contract.errors import bad_settings
from stages.contract.spec import StageSpec, package

STAGES = (
    "prepare",
    "instructions",
    "curate",
    "responses",
    "diversity",
    "warmup",
    "audit",
    "influence",
    "judge",
    "loss",
    "random",
    "aggregate",
    "reseed",
    "pairs",
    "dpo",
    "budget",
    "sft",
    "evaluate",
    "evalset",
    "replies",
    "winrate",
    "mtbench",
    "harness",
    "comparison",
    "tasks",
    "questions",
    "select",
    "rationales",
    "answers",
    "irt",
    "incontext",
    "preferences",
    "accuracy",
    "report",
)


@cache
def spec(name: str) -> StageSpec:
    """The declaration of one stage; an unknown name is a user's mistake (a task or recipe naming it)."""
    if name not in STAGES and not _is_dotted(name):
        raise bad_settings(f"there is no stage {name!r}", hint=f"stages are {', '.join(STAGES)}")
    module = f"{package(name)}.settings"
    try:
        found = import_module(module).SPEC
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the stage is there; something that it imports is not
        raise bad_settings(f"there is no stage {name!r}", hint=f"no module {error.name} on the PYTHONPATH") from None
    assert isinstance(found, StageSpec)
    return found


def _is_dotted(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)
