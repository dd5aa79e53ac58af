"""The models that write in a stage: loaded when first asked, metered whenever they work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from stages.contract.context import StageContext
from stages.generation.engines.base import Engine, open_engine
from stages.generation.prompts import PromptMaker, chat, templated, untemplated
from stages.generation.request import Completion, Message, Prompt, Request
from stages.generation.settings import EngineSettings, GenerationSettings

INPUT = "teacher"


class Generator:
    """Prompts and completions of one input model. Making one costs nothing; its first prompt loads the engine.

    Args:
        name: the input that is the model. A remote model is the server's: the input then only says which one it is.
        engine: what runs it.
        system: the system message of `prompt`; None leaves the chat template's own.
        plain: whether a model without a chat template (a base model, as students may be) is asked in plain text.
    """

    def __init__(
        self,
        context: StageContext,
        name: str,
        engine: EngineSettings,
        system: str | None = None,
        *,
        plain: bool = False,
    ) -> None:
        self._context = context
        self._name = name
        self._settings = engine
        self._system = system
        self._plain = plain
        self.digest = context.digest(name)

    @cached_property
    def _loaded(self) -> tuple[Engine, PromptMaker]:
        context, settings = self._context, self._settings
        context.progress.phase("loading")
        folder = None if settings.kind == "openai" else context.model(self._name)
        with context.meter.phase("load"):
            # The engine comes first: it sets its variables before torch is imported, which the tokenizer does too.
            engine = open_engine(settings, folder)
            make = untemplated if folder is None else templated(folder, plain=self._plain)
        context.log.info("engine ready", engine=settings.kind)
        context.progress.phase("working")
        return engine, make

    def prompt(self, user: str, prefill: str = "") -> Prompt:
        return self.conversation(chat(user, self._system), prefill)

    def conversation(self, messages: Sequence[Message], prefill: str = "") -> Prompt:
        """A prompt of several turns, the last one the user's."""
        _, make = self._loaded
        return make(messages, prefill)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        engine, _ = self._loaded
        with self._context.meter.phase("compute" if engine.devices else "wait", devices=engine.devices):
            completions = engine.generate(requests, self._context.check_stop)
        self._context.meter.count(tokens=sum(each.output_tokens for each in completions))
        return completions


class Teacher(Generator):
    """The input `teacher` of a generating stage."""

    def __init__(self, context: StageContext) -> None:
        settings: GenerationSettings = context.settings
        super().__init__(context, INPUT, settings.engine, settings.system)
