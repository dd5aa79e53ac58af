"""From what a recipe names to a local Hugging Face folder in safetensors."""

from __future__ import annotations

from pathlib import Path

from stages.contract.canonical import digest, folder_identity
from stages.contract.errors import ExitCode, StageError, bad_data, bad_settings
from stages.contract.store import Store
from stages.models import builtin
from stages.models.cache import made_once
from stages.models.prune import without_layers
from stages.models.settings import BUILTIN, HUB_ID, IN_STORE, ModelSource, stored_identity

# A hub repository often holds the same weights in several formats.
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def resolve(source: ModelSource, cache: Path, store: Store | None = None) -> Path:
    """The folder that holds the model, made or downloaded if need be. Several processes may call it at once.

    Args:
        source: what the recipe names.
        cache: where converted, pruned and downloaded models are kept; a hub's are kept in the hub's own cache.
        store: the run's store, for models that lie in it.

    Raises:
        StageError: BAD_SETTINGS for a model that does not exist, may not be read, is not in safetensors, or
            has no such layers; STORE when the hub does not answer.
    """
    folder = _whole(source, cache, store)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise bad_settings(
            f"{folder} is not a Hugging Face model in safetensors (config.json and *.safetensors)",
            where=source.model,
            hint="save the model with `save_pretrained`",
        )
    return without_layers(folder, source.drop_layers, cache) if source.drop_layers else folder


def _whole(source: ModelSource, cache: Path, store: Store | None) -> Path:
    if source.model.startswith(IN_STORE):
        assert store is not None
        return _from_store(store, source.model, cache)
    if source.model.startswith(BUILTIN):
        return builtin.find(source.model.removeprefix(BUILTIN), cache)
    folder = Path(source.model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if HUB_ID.fullmatch(source.model):
        return _from_hub(source.model, source.revision)
    raise bad_settings(
        "there is no such folder, and this is no hub id",
        where=source.model,
        hint="name a folder, a hub id `org/name`, or builtin:smollm2",
    )


def _from_store(store: Store, model: str, cache: Path) -> Path:
    """A folder that was copied into the store; it is checked once, after it was downloaded."""
    key, identity = model.removeprefix(IN_STORE), stored_identity(store, model)
    here = store.local_path(key)
    if here is not None:
        return here

    def download(folder: Path) -> None:
        for name, _, _ in identity:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(f"{key}/{name}", folder / name)
        if folder_identity(folder) != identity:
            raise bad_data("the model's files are not those that were copied there", where=f"{store.uri}/{key}")

    return made_once(cache / "models" / f"store-{digest(identity)[:32]}", download)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except GatedRepoError as error:
        hint = "accept its licence on the hub, then set HF_TOKEN"
        raise bad_settings("this model is gated", where=name, hint=hint) from error
    except RepositoryNotFoundError as error:
        hint = "check the name; a private one needs HF_TOKEN"
        raise bad_settings("no such folder, and no such model on the hub", where=name, hint=hint) from error
    except RevisionNotFoundError as error:
        raise bad_settings(f"this model has no revision {revision!r}", where=name) from error
    except (LocalEntryNotFoundError, HTTPError) as error:
        if constants.is_offline_mode():
            hint = "check the path, or unset HF_HUB_OFFLINE"
            raise bad_settings("no such folder, and no such model downloaded", where=name, hint=hint) from error
        raise StageError(
            "there is no such folder, it is not among the downloaded models, and the hub does not answer",
            code=ExitCode.STORE,
            where=name,
            hint="check the path, or the network; HF_ENDPOINT names another hub",
        ) from error
