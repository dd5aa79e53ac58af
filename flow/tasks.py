"""What an ARTE recipe names besides models: files of questions, and a folder of reasoning prompts beside the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flow.mistakes import told
from flow.recipe import RecipeBase, read_yaml
from flow.sources import settle_source
from stages.contract.errors import bad_settings
from stages.contract.store import Store
from stages.rationales.settings import TaskPrompts


def settled_tasks(recipe: RecipeBase, path: Path, store: Store | None) -> dict[str, Any]:
    """Overrides that make a recipe's tasks and prompts the same on any machine; nothing for other methods.

    Args:
        path: of the recipe: its folder of prompts is relative to it.
        store: files of questions are copied into it; None copies nothing (a plan).

    Raises:
        StageError: BAD_SETTINGS for a file or folder that is not there, or prompts that are none.
    """
    if recipe.method != "arte":
        return {}
    tasks: Any = recipe.section("tasks")
    found: dict[str, Any] = {}
    for name, task in tasks.tasks.items():
        where = f"{path}: tasks.tasks.{name}.sources"
        if task.sources:
            sources = [
                {**source.model_dump(mode="json"), **settle_source(source.uri, store, where)} for source in task.sources
            ]
            found[name] = {"sources": sources}
    rationales: Any = recipe.section("rationales")
    prompts = rationales.prompts
    settled: dict[str, Any] = {"tasks": {"tasks": found}} if found else {}
    if isinstance(prompts, str):
        settled["rationales"] = {"prompts": read_prompts(path.parent / prompts, f"{path}: rationales.prompts")}
    return settled


def read_prompts(folder: Path, where: str) -> dict[str, Any]:
    """The reasoning prompts of a folder: TASK.yaml by task."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise bad_settings(
            f"there are no prompts in {folder}",
            where=where,
            hint="a folder beside the recipe with TASK.yaml, default.yaml",
        )
    found: dict[str, Any] = {}
    for file in files:
        try:
            found[file.stem] = TaskPrompts.model_validate(read_yaml(file)).model_dump(mode="json")
        except ValidationError as error:
            raise bad_settings(told(error, TaskPrompts), where=str(file)) from None
    return found
