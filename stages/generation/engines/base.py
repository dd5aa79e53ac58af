"""What every engine does, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from stages.generation.request import Completion, Request
from stages.generation.settings import EngineSettings

CheckStop = Callable[[], None]


class Engine(Protocol):
    """Samples text from a model.

    Attributes:
        devices: devices that compute while `generate` runs; 0 where they are somebody else's.
    """

    devices: int

    def generate(self, requests: Sequence[Request], check_stop: CheckStop) -> list[Completion]:
        """One completion for each request, in order. `check_stop` is called often and may raise to end the work."""
        ...


def open_engine(settings: EngineSettings, model: Path | None) -> Engine:
    """Loads the engine. `model` is the local folder; only the openai engine goes without.

    Raises:
        StageError: BAD_SETTINGS where the engine's package is not installed or the settings do not fit the
        model.
    """
    if settings.kind == "openai":
        from stages.generation.engines.openai import OpenAIEngine

        return OpenAIEngine(settings)
    assert model is not None
    if settings.kind == "transformers":
        from stages.generation.engines.transformers import TransformersEngine

        return TransformersEngine(settings, model)
    from stages.generation.engines.vllm import VllmEngine

    return VllmEngine(settings, model)
