"""From a recipe's file to a TailoringRun: what lies on this machine is copied into the store, then the run is created.

Fingerprints are those of a local run: rows and models are known by their content, wherever they lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flow.recipe import RecipeBase, check_recipe, parse_set, read_yaml
from flow.sources import check_models, local_sources, upload_recipe
from flow.tasks import settle_prompts
from k8s import access
from k8s.settings import CONTROLLER_KEY
from stages.contract.canonical import canonical_json
from stages.contract.errors import ExitCode, StageError, bad_settings
from stages.contract.fingerprint import VERSIONS_VARIABLE
from stages.contract.store import Store, open_store


def submit_recipe(path: Path, namespace: str | None, store: str | None, overrides: list[str]) -> str:
    """Checks a recipe as a whole, copies what pods cannot reach, and creates or changes the run.

    Returns:
        What was done, and the next thing to type.

    Raises:
        StageError: BAD_SETTINGS for a mistake in the recipe or a right that is missing, STORE where cluster or store
            do not answer.
    """
    recipe = check_recipe(read_yaml(path), parse_set(overrides), where=str(path))
    check_models(recipe, str(path))
    recipe = settle_prompts(recipe, path)
    client = access.connect(namespace)
    if local := local_sources(recipe):
        uri = store or _named(recipe) or access.controllers_store(client)
        if uri is None:
            raise bad_settings(
                f"{', '.join(local)}: on this machine, and the controller's store is not known",
                where=str(path),
                hint="--store s3://bucket/prefix, as the controller has it",
            )
        with _reached(uri, client.namespace) as opened:
            recipe = upload_recipe(recipe, opened, str(path))
    done = access.submit(client, recipe)
    return f"{recipe.name}: {done}; next: montessori watch {recipe.name} -n {client.namespace}"


def use_cluster(namespace: str, store: str | None) -> str:
    """The store of a namespace's controller, with the versions of its stages' packages set for fingerprints."""
    client = access.connect(namespace)
    uri = store or access.controllers_store(client)
    if uri is None:
        hint = "--store s3://bucket/prefix, as the controller has it"
        raise bad_settings("the controller's store is not known", where=f"namespace {client.namespace}", hint=hint)
    with _reached(uri, client.namespace) as opened:
        told = opened.get_json(CONTROLLER_KEY)
    if isinstance(told, dict) and VERSIONS_VARIABLE not in os.environ:
        os.environ[VERSIONS_VARIABLE] = canonical_json(told.get("versions", {})).decode()
    return uri


def _named(recipe: RecipeBase) -> str | None:
    return recipe.store if recipe.store.startswith("s3://") else None


@contextmanager
def _reached(uri: str, namespace: str) -> Iterator[Store]:
    """A store that this machine has to reach too; where it cannot, the error says how it could."""
    try:
        yield open_store(uri).hasty()
    except StageError as error:
        if error.code != ExitCode.STORE and "credentials" not in error.message:
            raise
        raise StageError(
            f"this machine does not reach the store: {error.message}",
            code=error.code,
            where=uri,
            hint="set AWS_ENDPOINT_URL and keys; for MinIO in the cluster first "
            f"kubectl port-forward -n {namespace} svc/…-minio 9000",
        ) from None
