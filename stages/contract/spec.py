"""What a stage declares about itself, and the base class of its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class StageSettings(BaseModel):
    """A stage's settings: unknown keys are errors, values never change after validation; NaN is no value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def resource(default: Any, **kwargs: Any) -> Any:
    """A settings field that changes cost but not output (batch size, GPUs): it stays out of the fingerprint."""
    return Field(default, json_schema_extra={"resource": True}, **kwargs)


def is_resource(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("resource"))


def output_settings(settings: BaseModel) -> dict[str, Any]:
    """The settings that change the output, as JSON values: all but those declared with `resource`."""
    kept: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if is_resource(field):
            continue
        value = getattr(settings, name)
        kept[name] = output_settings(value) if isinstance(value, BaseModel) else _jsonable(settings, name)
    return kept


def _jsonable(settings: BaseModel, name: str) -> Any:
    return settings.model_dump(mode="json", include={name})[name]


Launch = Literal["process", "torchrun"]
LAUNCHES: tuple[str, ...] = get_args(Launch)


def package(name: str) -> str:
    """The package that a stage's name stands for: `sft` is one of ours, `acme.rank` is importable as it stands."""
    return name if "." in name else f"stages.{name}"


@dataclass(frozen=True)
class StageSpec:
    """One stage, as a sequencer sees it.

    Attributes:
        name: the stage's name; its code is `stages.NAME.stage:run`, or `NAME.stage:run` for a dotted name.
        version: raised whenever the same settings and inputs would give other output.
        settings: the pydantic model of its settings.
        about: one line for `plan` and the report.
        inputs: names of the inputs it needs; a trailing `*` stands for one or more names with that prefix.
        optional: names of the inputs it can use.
        sharded: whether the rows of its first input may be split over several indices.
        launch: `torchrun` for stages that start one process a rank themselves.
        packages: distributions whose version changes the output; alternatives separated by `|`.
    """

    name: str
    version: int
    settings: type[StageSettings]
    about: str
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    sharded: bool = False
    launch: Launch = "process"
    packages: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        return f"{package(self.name)}.stage"
