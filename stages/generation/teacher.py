"""The teacher of a generating stage: loaded when first asked, metered whenever it works."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from stages.contract.context import StageContext
from stages.generation.engines.base import Engine, open_engine
from stages.generation.prompts import PromptMaker, chat, templated, untemplated
from stages.generation.request import Completion, Prompt, Request
from stages.generation.settings import GenerationSettings

INPUT = "teacher"


class Teacher:
    """Prompts and completions of the input `teacher`. Making one costs nothing; its first prompt loads the engine."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._settings: GenerationSettings = context.settings
        self.digest = context.digest(INPUT)

    @cached_property
    def _loaded(self) -> tuple[Engine, PromptMaker]:
        context, settings = self._context, self._settings.engine
        context.progress.phase("loading")
        # A remote model is the server's: the input then only says which one it is.
        folder = None if settings.kind == "openai" else context.model(INPUT)
        with context.meter.phase("load"):
            # The engine comes first: it sets its variables before torch is imported, which the tokenizer does too.
            engine = open_engine(settings, folder)
            make = untemplated if folder is None else templated(folder)
        context.log.info("engine ready", engine=settings.kind)
        context.progress.phase("working")
        return engine, make

    def prompt(self, user: str, prefill: str = "") -> Prompt:
        _, make = self._loaded
        return make(chat(user, self._settings.system), prefill)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        engine, _ = self._loaded
        with self._context.meter.phase("compute" if engine.devices else "wait", devices=engine.devices):
            completions = engine.generate(requests, self._context.check_stop)
        self._context.meter.count(tokens=sum(each.output_tokens for each in completions))
        return completions
