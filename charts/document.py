"""values.schema.json and the table in README.md, made from the comments in a chart's values.yaml.

    python charts/document.py charts/montessori            # write both
    python charts/document.py --check charts/montessori    # exit 1 where they are not up to date

A value's comment is the lines above its key. One that starts with `schema:` is JSON Schema for it; its type is that of
the default. A mapping without a comment is a section: its keys are documented, and no others are allowed. `--check`
also names values without a comment and values that no template reads, which would be settings that do nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BEGIN, END = "<!-- values: made by charts/document.py -->", "<!-- end of values -->"
_SCHEMA = "schema:"
_TYPES = {
    "tag:yaml.org,2002:str": "string",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:seq": "array",
    "tag:yaml.org,2002:map": "object",
}


@dataclass(frozen=True)
class Value:
    """A documented value: where it is, what it is by default, what is said of it, what it may be."""

    path: tuple[str, ...]
    default: Any
    about: str
    schema: dict[str, Any]

    @property
    def name(self) -> str:
        return ".".join(self.path)


class Mistake(Exception):
    """values.yaml cannot be documented; says which line."""


def read_values(text: str) -> list[Value]:
    """Every documented value of a values.yaml, in its order.

    Raises:
        Mistake: a value without a comment, or a `schema:` line that is not a JSON object.
    """
    return list(_values(yaml.compose(text), text.splitlines(), ()))


def _values(node: Any, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        line = key.start_mark.line
        about, schema = _comment(lines, line)
        here = (*path, key.value)
        if about:
            default = yaml.safe_load(yaml.serialize(value))
            yield Value(here, default, about, {"type": _TYPES[value.tag], **schema})
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _values(value, lines, here)
        else:
            raise Mistake(f"line {line + 1}: {'.'.join(here)} has no comment that says what it is for")


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    about: list[str] = []
    schema: dict[str, Any] = {}
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    for number in range(first, line):
        text = lines[number].lstrip().removeprefix("#").strip()
        if text.startswith(_SCHEMA):
            try:
                schema |= json.loads(text.removeprefix(_SCHEMA))
            except (ValueError, TypeError) as error:
                raise Mistake(f"line {number + 1}: not a JSON object after `{_SCHEMA}`: {error}") from None
        else:
            about.append(text)
    return " ".join(about), schema


def schema_of(values: list[Value]) -> dict[str, Any]:
    """JSON Schema of a values.yaml: sections take the documented keys only."""
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        # What helm itself adds where the chart is somebody's dependency
        "properties": {"global": {"type": "object"}},
    }
    for value in values:
        section = root
        for part in value.path[:-1]:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            section = section["properties"].setdefault(part, empty)
        section["properties"][value.path[-1]] = {"description": value.about, **value.schema}
    return root


def table_of(values: list[Value]) -> str:
    """The values as a Markdown table."""
    rows = ["| value | default | |", "| --- | --- | --- |"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        about = value.about.replace("|", "\\|")
        rows.append(f"| `{value.name}` | `{default}` | {about} |")
    return "\n".join(rows)


def unread(values: list[Value], templates: str) -> list[str]:
    """Names of values that no template reads, neither by name nor (an image's parts) through its mapping."""
    read = set(re.findall(r"\.Values((?:\.\w+)+)", templates))
    parts = set(re.findall(r"\$image\.(\w+)", templates))
    return [
        value.name
        for value in values
        if f".{value.name}" not in read
        and not (value.path[-1] in parts and f".{'.'.join(value.path[:-1])}" in read and value.path[-2] == "image")
    ]


def main(arguments: list[str]) -> int:
    """Writes or, with --check, compares; 1 where something is to be done, with what."""
    check = "--check" in arguments
    chart = Path(next(each for each in arguments if each != "--check"))
    source = chart / "values.yaml"
    try:
        values = read_values(source.read_text(encoding="utf-8"))
    except Mistake as mistake:
        print(f"{source}: {mistake}", file=sys.stderr)
        return 1
    files = sorted((chart / "templates").rglob("*.*"))
    unused = unread(values, "\n".join(file.read_text(encoding="utf-8") for file in files))
    for name in unused:
        print(f"{source}: no template reads {name}: it would do nothing", file=sys.stderr)
    readme = chart / "README.md"
    head, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    made = {
        chart / "values.schema.json": json.dumps(schema_of(values), indent=2, ensure_ascii=False) + "\n",
        readme: f"{head}{BEGIN}\n\n{table_of(values)}\n\n{END}{rest.split(END)[1]}",
    }
    old = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if check:
        for path in old:
            print(f"{path}: does not say what {source} says; run `make chart`", file=sys.stderr)
    else:
        for path in old:
            path.write_text(made[path], encoding="utf-8")
    return 1 if unused or (check and old) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
