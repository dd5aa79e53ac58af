"""A task: everything that one node's containers are told. Written by the sequencer, read by every shard."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.contract.canonical import digest as content_digest
from stages.contract.errors import bad_settings
from stages.contract.store import Store, open_store

# Names become parts of keys, and keys become paths: no segment may be empty, `.` or `..`.
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._=-]*"
Name = Annotated[str, Field(pattern=rf"^{_SEGMENT}$")]
Key = Annotated[str, Field(pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArtifactInput(_Frozen):
    """An input that another node published: its key in the store and its content digest (hex)."""

    kind: Literal["artifact"] = "artifact"
    key: str
    digest: str
    folder: str = ""  # a part of the artifact, such as the model inside a warm-up checkpoint

    @property
    def identity(self) -> str:
        """What tells this input's content from another's: two folders of one artifact differ."""
        return content_digest([self.digest, self.folder]) if self.folder else self.digest


class ModelInput(_Frozen):
    """A model from outside the store: a `stages.models.settings.ModelSource` and the digest of what it names."""

    kind: Literal["model"] = "model"
    source: dict[str, Any]
    digest: str

    @property
    def identity(self) -> str:
        return self.digest


Input = Annotated[ArtifactInput | ModelInput, Field(discriminator="kind")]


class Shards(_Frozen):
    """How a node's rows are split.

    `indices` maps a Job's completion index to the logical shard: a Job for three failed shards of a hundred
    has three completions and `indices == [3, 7, 41]`.
    """

    count: int = Field(1, ge=1)
    indices: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)

    @model_validator(mode="after")
    def _indices_are_shards(self) -> Self:
        if max(self.indices) >= self.count or len(set(self.indices)) < len(self.indices):
            raise ValueError(f"indices {list(self.indices)} are not different shards of {self.count}")
        return self


class Task(_Frozen):
    """One attempt at one node. Keys are relative to the store's root."""

    run: Name
    node: Name
    stage: str
    attempt: int = Field(1, ge=1)
    settings: dict[str, Any]
    inputs: dict[str, Input] = {}
    output: Key
    fingerprint: str
    shards: Shards = Shards()
    deadline: AwareDatetime | None = None

    @property
    def key(self) -> str:
        return task_key(self.run, self.node, self.attempt)


def task_key(run: str, node: str, attempt: int) -> str:
    return f"runs/{run}/tasks/{node}-{attempt}.json"


def write_task(store: Store, task: Task) -> str:
    """Puts the task into the store and returns its URI."""
    store.put(task.key, task.model_dump_json(indent=1).encode())
    return f"{store.uri}/{task.key}"


def open_task(uri: str) -> tuple[Store, Task]:
    """The store a task URI lies in, and the task.

    A task lies at ROOT/runs/RUN/tasks/FILE, so the store's root is what stands before `runs/`.

    Raises:
        StageError: BAD_SETTINGS when the URI has another form or the file is no task.
    """
    root, *parts = uri.rsplit("/", 4)
    if len(parts) < 4 or not root or parts[0] != "runs" or parts[2] != "tasks":
        raise bad_settings(
            "this is not the URI of a task", where=uri, hint="expected …/runs/RUN/tasks/NODE-ATTEMPT.json"
        )
    store = open_store(root)
    key = "/".join(parts)
    data = store.get_or_none(key)
    if data is None:
        raise bad_settings("there is no such task", where=uri, hint="montessori status lists a run's nodes")
    try:
        return store, Task.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise bad_settings(
            f"not a valid task: {first['msg']}", where=f"{uri} at {'.'.join(map(str, first['loc']))}"
        ) from None
