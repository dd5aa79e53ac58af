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
from stages.influence.examples import PLAIN_PROMPT

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


def templated(model: Path, *, plain: bool = False) -> PromptMaker:
    """Makes prompts with the chat template of a model folder; with `plain`, in plain text where it has none.

    Raises:
        StageError: BAD_SETTINGS where the model's tokenizer has no chat template and `plain` is not given.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if not tokenizer.chat_template and not plain:
        raise bad_settings(
            "the teacher's tokenizer has no chat template",
            where=str(model),
            hint="take an instruction-tuned teacher, or put a chat_template.jinja beside its tokenizer",
        )

    def rendered(messages: Sequence[Message]) -> str:
        if tokenizer.chat_template:
            return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
        begins = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
        return (tokenizer.bos_token if begins else "") + _plain(messages)

    def make(messages: Sequence[Message], prefill: str) -> Prompt:
        text = rendered(messages) + prefill
        # Not the ids of apply_chat_template: what trains on `text` later tokenises it like this, the seam
        # before the prefill included.
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Prompt(text, tuple(ids), tuple(messages), prefill)

    return make


def _plain(messages: Sequence[Message]) -> str:
    """Turns as the encoder of training rows writes them for a tokenizer without a chat template, and one begun."""
    said = ""
    for message in messages:
        text = message["content"]
        said += f"{text}\n\n" if message["role"] == "assistant" else PLAIN_PROMPT.format(instruction=text)
    return said


def untemplated(messages: Sequence[Message], prefill: str) -> Prompt:
    """A prompt for a server that applies its own template; its text is what the messages say."""
    text = "\n\n".join(message["content"] for message in messages)
    return Prompt(f"{text}\n\n{prefill}" if prefill else text, None, tuple(messages), prefill)
