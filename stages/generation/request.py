"""What an engine is asked and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from stages.generation.settings import SamplingSettings

FinishReason = Literal["stop", "length", "prompt_too_long"]


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Prompt:
    """A prompt in the forms that engines take.

    Attributes:
        text: all of it, chat template and begun turn included. Rows keep this one, and training uses it.
        token_ids: `tokenizer(text, add_special_tokens=False)`; None where no tokenizer is at hand (a remote
        model). messages: the conversation without the begun turn. prefill: the begun assistant turn; the
        output continues it and does not repeat it.
    """

    text: str
    token_ids: tuple[int, ...] | None
    messages: tuple[Message, ...]
    prefill: str


@dataclass(frozen=True)
class Request:
    """One output to be sampled. Several of one prompt are several requests, each with its own seed."""

    prompt: Prompt
    seed: int
    sampling: SamplingSettings
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One sampled output, up to and with the stop text if it came to one.

    Attributes:
        finish_reason: `stop` at a stop text or the end of the turn, `length` when cut at max_tokens or at the
        end of
            the context, `prompt_too_long` when nothing was generated for lack of room.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    output_tokens: int


def too_long(prompt_tokens: int) -> Completion:
    return Completion("", "prompt_too_long", prompt_tokens, 0)


def cut_at_stop(text: str, stop: Sequence[str]) -> str | None:
    """The text up to and with the first stop text; None if it holds none."""
    ends = [text.find(each) + len(each) for each in stop if each in text]
    return text[: min(ends)] if ends else None


def local_ids(prompt: Prompt) -> tuple[int, ...]:
    """The token ids that an engine in this process needs."""
    assert prompt.token_ids is not None, "a local engine's prompts are made with its model's tokenizer"
    return prompt.token_ids
