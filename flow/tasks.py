"""What an ARTE recipe names besides models and rows: a folder of reasoning prompts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flow.mistakes import told
from flow.recipe import RecipeBase, read_yaml
from stages.contract.errors import bad_settings
from stages.rationales.settings import TaskPrompts


def settle_prompts(recipe: RecipeBase, path: Path) -> RecipeBase:
    """A recipe that holds the reasoning prompts of the folder that it names; other recipes stay as they are.

    Args:
        recipe: the recipe.
        path: of its file: the folder is relative to it.

    Raises:
        StageError: BAD_SETTINGS for a folder that is not there, or prompts that are none.
    """
    if recipe.method != "arte":
        return recipe
    rationales = recipe.section("rationales")
    prompts = getattr(rationales, "prompts", None)
    if not isinstance(prompts, str):
        return recipe
    found = read_prompts(path.parent / prompts, f"{path}: rationales.prompts")
    values = {**rationales.model_dump(mode="json", exclude_unset=True), "prompts": found}
    return recipe.model_copy(update={"rationales": type(rationales).model_validate(values)})


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
