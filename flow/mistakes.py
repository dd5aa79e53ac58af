"""What is wrong with a recipe, in words: the key, what was expected, and the nearest name that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """Every mistake on a line of its own, with the nearest known name for an unknown key."""
    lines = list(_mistakes(error, model))
    return lines[0] if len(lines) == 1 else "\n  " + "\n  ".join(lines)


def _mistakes(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for each in error.errors():
        location = each["loc"]
        if each["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            yield f"{dotted(location)}: unknown key{nearest(str(location[-1]), known)}"
        elif each["type"] == "missing":
            yield f"{dotted(location)}: must be given"
        else:
            message = each["msg"].removeprefix("Value error, ")
            value = each.get("input")
            shown = f", not {value!r}" if isinstance(value, str | int | float | bool) else ""
            yield f"{dotted(location)}: {message}{shown}" if location else message


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location:
        current = _inside(current, part)
    found = _model(current)
    return list(found.model_fields) if found else []


def _inside(current: Any, part: int | str) -> Any:
    """The type at a key: of a mapping or a sequence what it holds, of a model the field's."""
    if get_origin(current) in (dict, list, tuple):
        return [each for each in get_args(current) if each is not ...][-1]
    found = _model(current)
    field = found.model_fields.get(str(part)) if found else None
    return field.annotation if field else None


def _model(annotation: Any) -> type[BaseModel] | None:
    """The type itself, or that in an optional one or a union."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""
