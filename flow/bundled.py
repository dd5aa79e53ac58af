"""The recipes that come with the package."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import yaml

from stages.contract.errors import bad_settings


def _folder() -> Path:
    return Path(str(files("recipes")))


def listing() -> list[tuple[str, str]]:
    """Name and purpose of every bundled recipe."""
    found = []
    for path in sorted(_folder().glob("*.yaml")):
        about = yaml.safe_load(path.read_text(encoding="utf-8")).get("about", "")
        found.append((path.stem, " ".join(str(about).split())))
    return found


def copy_recipe(name: str, target: Path | None) -> Path:
    """Copies a bundled recipe; an existing file is never overwritten."""
    source = _folder() / f"{name}.yaml"
    if not source.is_file():
        known = ", ".join(each for each, _ in listing())
        raise bad_settings(f"there is no bundled recipe {name!r}", hint=f"there are {known}")
    path = target if target is not None else Path(f"{name}.yaml")
    if path.exists():
        raise bad_settings("the file exists already", where=str(path), hint="choose another with --to")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    _copy_prompts(source, path)
    return path


def _copy_prompts(source: Path, target: Path) -> None:
    """The folder of reasoning prompts that a recipe names, beside its copy; one that is there stays as it is."""
    rationales = yaml.safe_load(source.read_text(encoding="utf-8")).get("rationales") or {}
    named = rationales.get("prompts")
    if isinstance(named, str) and not (target.parent / named).exists():
        shutil.copytree(source.parent / named, target.parent / named)
