"""How inputs name students that were trained several times: `tailored.seed-2`."""

from __future__ import annotations

_MARK = ".seed-"


def replica(student: str, seed: int | None) -> str:
    return student if seed is None else f"{student}{_MARK}{seed}"


def split_replica(name: str) -> tuple[str, int | None]:
    """(student, training seed); None for a student without replicas."""
    student, marked, seed = name.partition(_MARK)
    return student, int(seed) if marked else None
