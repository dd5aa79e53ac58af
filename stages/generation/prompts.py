"""From messages to the exact text and token ids that a teacher is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import SandboxedEnvironment

from stages.contract.errors import bad_settings
from stages.generation.request import Message, Prompt

PromptMaker = Callable[[Sequence[Message], str], Prompt]
_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def names_used(source: str) -> set[str]:
    """The variables that a Jinja template uses; ValueError if it is none."""
    try:
        return meta.find_undeclared_variables(_ENVIRONMENT.parse(source))
    except TemplateError as error:
        raise ValueError(f"not a Jinja template: {error}") from None


def render(source: str, **values: Any) -> str:
    """The template's text with these values, without white space around it."""
    return _compiled(source).render(**values).strip()


@cache
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


def chat(user: str, system: str | None = None) -> tuple[Message, ...]:
    first: tuple[Message, ...] = ({"role": "system", "content": system},) if system else ()
    return (*first, {"role": "user", "content": user})


def templated(model: Path) -> PromptMaker:
    """Makes prompts with the chat template of a model folder.

    Raises:
        StageError: BAD_SETTINGS where the model's tokenizer has no chat template.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if not tokenizer.chat_template:
        raise bad_settings(
            "the teacher's tokenizer has no chat template",
            where=str(model),
            hint="take an instruction-tuned teacher, or put a chat_template.jinja beside its tokenizer",
        )

    def make(messages: Sequence[Message], prefill: str) -> Prompt:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True) + prefill
        # Not the ids of apply_chat_template: what trains on `text` later tokenises it like this, the seam
        # before the prefill included.
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Prompt(text, tuple(ids), tuple(messages), prefill)

    return make


def untemplated(messages: Sequence[Message], prefill: str) -> Prompt:
    """A prompt for a server that applies its own template; its text is what the messages say."""
    text = "\n\n".join(message["content"] for message in messages)
    return Prompt(f"{text}\n\n{prefill}" if prefill else text, None, tuple(messages), prefill)
