"""A TailoringRun object as a checked run: its recipe and what its user asks for. Pure, but for the stages' settings.

The API server has checked the object against the CRD's schema; here the recipe is checked as a whole, and for what only
a cluster minds: pods share no files with whoever wrote the recipe, and there is one store, the controller's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flow.mistakes import told
from flow.recipe import RecipeBase, check_recipe
from flow.sources import sources_of
from k8s.render import RunRef
from stages.contract.errors import bad_settings
from stages.models.settings import BUILTIN, BUILTIN_DISTRIBUTIONS, HUB_ID, ModelSource
from stages.prepare.settings import BUILTIN as BUILTIN_ROWS
from stages.prepare.settings import HUB, S3, STORE, Source

MOST_RERUNS = 256
MOST_RERUN_SHARDS = 10_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rerun(_Strict):
    """A request of `spec.rerun`, carried out once: its id is then in `status.rerun`.

    Without a node it makes nothing again: a run that failed goes on, its failures forgotten.
    """

    id: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    node: str | None = Field(None, min_length=1, max_length=63)
    shards: tuple[Annotated[int, Field(ge=0, le=99_999)], ...] | None = Field(
        None, min_length=1, max_length=MOST_RERUN_SHARDS
    )
    down: bool = False

    @model_validator(mode="after")
    def _of_a_node(self) -> Rerun:
        if self.node is None and self.shards is not None:
            raise ValueError("shards needs the node that has them")
        if self.node is None and self.down:
            raise ValueError("down needs the node from which to go down")
        if self.shards is not None and self.down:
            raise ValueError("give shards or down, not both")
        return self


class RunSpec(_Strict):
    """`spec` of a TailoringRun, as the CRD has it."""

    recipe: dict[str, Any]
    cancel: bool = False
    rerun: tuple[Rerun, ...] = Field((), max_length=MOST_RERUNS)


@dataclass(frozen=True)
class Run:
    """A run whose recipe is valid."""

    name: str
    namespace: str
    uid: str
    generation: int
    recipe: RecipeBase
    cancel: bool
    rerun: tuple[Rerun, ...]

    @property
    def ref(self) -> RunRef:
        return RunRef(self.name, self.namespace, self.uid, self.recipe.run.retries)


def parse_run(obj: Mapping[str, Any], store: str) -> Run:
    """A TailoringRun as the API server gives it, checked.

    Args:
        obj: the object as JSON values.
        store: the URI of the controller's store, which the recipe gets.

    Raises:
        StageError: BAD_SETTINGS whose text is fit for the condition Valid: every mistake, with its key.
    """
    metadata = obj["metadata"]
    name = str(metadata["name"])
    where = f"trun/{name}"
    try:
        spec = RunSpec.model_validate(obj.get("spec") or {})
    except ValidationError as error:
        raise bad_settings(told(error, RunSpec), where=f"{where} spec") from None
    written = spec.recipe.get("name", name)
    if written != name:
        raise bad_settings(
            f"the recipe's name is {written!r} and the run's is {name!r}", where=where, hint="leave the recipe's out"
        )
    default = RecipeBase.model_fields["store"].default
    named = spec.recipe.get("store", default)
    if named not in (default, store):
        raise bad_settings(
            f"the recipe's store is {named!r} and the controller's is {store}",
            where=where,
            hint="leave the recipe's out",
        )
    recipe = check_recipe(spec.recipe, {"name": name, "store": store}, where=f"{where} spec.recipe")
    for key, source in sources_of(recipe):
        problem = _model_problem(source) if isinstance(source, ModelSource) else _rows_problem(source)
        if problem:
            raise bad_settings(problem, where=f"{where} spec.recipe.{key}", hint="montessori submit copies local files")
    prompts = getattr(recipe.section("rationales"), "prompts", None)
    if recipe.method == "arte" and isinstance(prompts, str):
        raise bad_settings(
            f"pods have no such folder: {prompts!r}",
            where=f"{where} spec.recipe.rationales.prompts",
            hint="montessori submit reads it; or write the prompts there themselves",
        )
    return Run(
        name=name,
        namespace=str(metadata["namespace"]),
        uid=str(metadata["uid"]),
        generation=int(metadata.get("generation", 1)),
        recipe=recipe,
        cancel=spec.cancel,
        rerun=spec.rerun,
    )


def _model_problem(source: ModelSource) -> str:
    """Why no pod can have this model; empty if one may."""
    model = source.model
    if model.startswith(BUILTIN):
        known = model.removeprefix(BUILTIN) in BUILTIN_DISTRIBUTIONS
        return "" if known else f"there is no built-in model {model!r}"
    if model.startswith(STORE):
        return _key_problem(model.removeprefix(STORE))
    return "" if HUB_ID.fullmatch(model) else f"pods have no such model: {model!r} is no hub id"


def _rows_problem(source: Source) -> str:
    """Why no pod can read these rows; empty if one may. A built-in name is checked with the recipe."""
    uri = source.uri
    if uri.startswith(STORE):
        return _key_problem(uri.removeprefix(STORE))
    if uri.startswith(S3):
        return _key_problem(uri.removeprefix(S3))
    if uri.startswith(HUB):
        return "" if HUB_ID.fullmatch(uri.removeprefix(HUB)) else f"{uri!r} is no dataset of the hub: hf:org/name"
    return "" if uri.startswith(BUILTIN_ROWS) else f"pods have no such file: {uri!r}"


def _key_problem(key: str) -> str:
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or _CONTROL.search(key):
        return f"{key!r} is no key of a store"
    return ""
