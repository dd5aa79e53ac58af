"""Where seeds and reference rows come from, and how they are cleaned and split."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.contract.spec import StageSettings, StageSpec

BUILTIN = "builtin:"
STORE = "store:"
INPUTS = f"{STORE}inputs/"  # a user's file, copied to inputs/SHA256/NAME when the run began
S3 = "s3://"
HUB = "hf:"
BUNDLED = Path(__file__).parent.parent / "data"
BUNDLED_NAMES = ("seeds", "reference", "turns")
Overlap = Literal["refuse", "drop", "keep"]
FORMATS = (".jsonl", ".ndjson", ".parquet")


class Fields(BaseModel):
    """Which of a row's fields hold what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: str = Field("instruction", description="field with the instruction")
    input: str | None = Field(
        None, description="field whose text, if any, is appended to the instruction after a blank line"
    )
    response: str = Field("response", description="field with the response; seeds need none")


class Source(BaseModel):
    """Rows from a bundled set, a file, an object store or the Hugging Face hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str = Field(
        min_length=1,
        description="builtin:seeds, builtin:reference, a path to .jsonl or .parquet, store:KEY in the run's "
        "own store, s3://bucket/key, or hf:org/name for a dataset of the Hugging Face hub",
    )
    fields: Fields = Field(Fields(), description="names of the fields in this source")
    limit: int | None = Field(None, ge=1, description="read at most this many rows, from the top")
    digest: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 (hex) of the file; other bytes are refused"
    )
    config: str | None = Field(None, description="hf: only: the dataset's configuration")
    split: str = Field("train", description="hf: only: the dataset's split")
    revision: str | None = Field(None, description="hf: only: branch, tag or commit; a commit can be repeated")

    @property
    def shown(self) -> str:
        """The source as its user knows it: a copied file by the name that it had."""
        return PurePosixPath(self.uri).name if self.uri.startswith(INPUTS) else self.uri

    @model_validator(mode="after")
    def _known_kind(self) -> Source:
        if self.uri.startswith(HUB):
            if self.digest is not None:
                raise ValueError("digest is for files; a hub dataset is pinned by revision: COMMIT")
            return self
        # By value, not by what was set: a task carries every setting, defaults too.
        defaults = {name: type(self).model_fields[name].default for name in ("config", "revision", "split")}
        named = [name for name, default in defaults.items() if getattr(self, name) != default]
        if named:
            raise ValueError(f"{named[0]} is for hf: datasets only, and {self.uri} is none")
        if self.uri.startswith(BUILTIN):
            name = self.uri.removeprefix(BUILTIN)
            if name not in BUNDLED_NAMES:
                raise ValueError(f"there is no {self.uri}; there is {', '.join(map(BUILTIN.__add__, BUNDLED_NAMES))}")
        elif PurePosixPath(self.uri).suffix not in FORMATS:
            raise ValueError(f"{self.uri}: expected a name ending in {', '.join(FORMATS)}, or hf:org/name")
        return self


def bundled_path(uri: str) -> Path:
    return BUNDLED / f"{uri.removeprefix(BUILTIN)}.jsonl"


class PrepareSettings(StageSettings):
    """Settings of `prepare`."""

    seeds: Source = Field(Source(uri="builtin:seeds"), description="instructions that are shown to the teacher")
    reference: Source = Field(
        Source(uri="builtin:reference"), description="rows on which the student's loss is measured"
    )
    probe_share: float = Field(
        0.5, gt=0, lt=1, description="share of the reference for measuring influence; the rest is held out"
    )
    overlap: Overlap = Field(
        "refuse",
        description="what to do when a reference row's instruction is also a seed: refuse, drop the seed, or keep it: "
        "Montessori-Instruct's ablation of test seeds, after which held-out figures are none, and the report says so",
    )
    on_bad_row: Literal["refuse", "drop"] = Field(
        "refuse",
        description="what to do with an unusable row: refuse the whole source, or drop the row",
    )


SPEC = StageSpec(
    name="prepare",
    version=1,
    settings=PrepareSettings,
    about="clean seeds and reference rows, split the reference into probe and held-out rows",
)
