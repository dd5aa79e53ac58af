"""What a run leaves in the store besides artifacts: its recipe, its state for `status`, requests to cancel.

    runs/RUN/recipe.json     the recipe as it was run        runs/RUN/state.json     how far it is, for people
    runs/RUN/resolved.json   which artifact each node is     runs/RUN/cancel         somebody asked it to stop

None of it decides anything: artifacts do.
"""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flow.recipe import RecipeBase, check_recipe
from stages.contract.clock import stamp
from stages.contract.errors import bad_settings
from stages.contract.store import Store

STALE_S = 60.0  # a running run writes its state every few seconds


class RunState(BaseModel):
    """How far a run is. `phase`: running, done, failed or interrupted."""

    model_config = ConfigDict(extra="ignore")

    phase: str
    exit_code: int = 0
    nodes: dict[str, dict[str, Any]]
    pid: int
    host: str = Field(default_factory=socket.gethostname)
    namespace: str = ""  # of the controller that runs it; empty for a local run
    updated: str = Field(default_factory=stamp)

    def age_s(self) -> float:
        """Seconds since it was written."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()


def cancel_key(run: str) -> str:
    return f"runs/{run}/cancel"


def write_state(store: Store, run: str, state: RunState) -> None:
    store.put(f"runs/{run}/state.json", state.model_dump_json(indent=1).encode())


def read_state(store: Store, run: str) -> RunState | None:
    data = store.get_or_none(f"runs/{run}/state.json")
    return RunState.model_validate_json(data) if data is not None else None


def write_recipe(store: Store, recipe: RecipeBase) -> None:
    store.put(f"runs/{recipe.name}/recipe.json", recipe.model_dump_json(indent=1).encode())


def read_recipe(store: Store, run: str) -> RecipeBase:
    """The recipe that a run was started with; an unknown run is a StageError that names those there are."""
    data = store.get_or_none(f"runs/{run}/recipe.json")
    if data is None:
        known = ", ".join(runs(store))
        raise bad_settings(
            f"there is no run {run!r}",
            where=store.uri,
            hint=f"there are {known}" if known else "montessori run RECIPE starts one",
        )
    try:
        return check_recipe(json.loads(data), {}, where=f"{store.uri}/runs/{run}/recipe.json")
    except ValidationError as error:
        raise bad_settings(f"the stored recipe is not valid: {error}", where=run) from None


def write_resolved(store: Store, run: str, summary: dict[str, Any]) -> None:
    store.put(f"runs/{run}/resolved.json", json.dumps(summary, indent=1).encode())


def read_resolved(store: Store, run: str) -> dict[str, Any]:
    """Which artifact each complete node of a run is."""
    found = store.get_json(f"runs/{run}/resolved.json")
    if found is None:
        raise bad_settings(f"the run {run!r} has no results yet", where=store.uri, hint="montessori run RECIPE")
    assert isinstance(found, dict)
    return found


def runs(store: Store) -> list[str]:
    """The names of all runs in the store."""
    return sorted({key.split("/")[1] for key, _ in store.list("runs/") if key.endswith("/recipe.json")})


def split_attempt(name: str) -> tuple[str, int] | None:
    """(node, attempt) of a name such as `it1.dpo-3`, as tasks and logs have it; None for any other.

    A node's own name may have dashes and end in a number (`tailored.sft-1`): the last dash is the attempt's.
    """
    node, _, number = name.rpartition("-")
    return (node, int(number)) if number.isdecimal() else None


def next_attempt(store: Store, run: str, node: str) -> int:
    """The number of a node's next attempt: one more than the latest task in the store."""
    folder = f"runs/{run}/tasks/"
    names = (key.removeprefix(folder).removesuffix(".json") for key, _ in store.list(f"{folder}{node}-"))
    found = (split_attempt(each) for each in names)
    return max((each[1] for each in found if each and each[0] == node), default=0) + 1
