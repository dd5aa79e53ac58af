"""(instruction, response) rows as token ids with the prompt masked by index.

The prompt is templated with the generation prompt open, then the response's own ids and the end-of-turn token
are appended. So the boundary between what is masked and what is scored is a number that is known, never one
that is searched for in text, and the ids are the ones that a generating engine was given.

Not guaranteed: that joining the ids gives what tokenising the joined text would (a merge across the
boundary). It is the sequence that generation sees, which is the one that matters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from stages.contract.errors import ExitCode, StageError

# For a tokenizer without a chat template: a base model has no turns to imitate.
PLAIN_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"
PLAIN_NEXT_TURN = "\n" + PLAIN_PROMPT.partition("\n")[0]  # such a model may not end its own turn, but begin the next

Reason = Literal["empty_response", "only_special_tokens", "no_response_token_left", "outside_vocabulary"]


@dataclass(frozen=True)
class Example:
    """One row: `ids[labels_from:]` are scored, each predicted from the tokens before it."""

    ids: tuple[int, ...]
    labels_from: int
    truncated: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.labels_from < len(self.ids):
            raise ValueError(f"labels_from {self.labels_from} leaves nothing to score in {len(self.ids)} tokens")

    @property
    def tokens(self) -> int:
        """Number of scored tokens."""
        return len(self.ids) - self.labels_from


@dataclass(frozen=True)
class Unusable:
    """A row that cannot be scored, and why."""

    reason: Reason
    detail: str


def within_context(config: Any, max_tokens: int = sys.maxsize) -> int:
    """`max_tokens`, or a student's context where that is shorter: positions that it has never seen would give a loss
    that means nothing."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(max_tokens, int(longest or max_tokens))


class Encoder:
    """Turns rows into examples with one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer; without a chat template `PLAIN_PROMPT` is used.
        max_tokens: the longest example; a longer response loses its end (and then has no end-of-turn token).
        vocabulary: the tokens that the student has embeddings of; a tokenizer may have been given more since.

    Raises:
        StageError: BAD_SETTINGS if the tokenizer has no end-of-turn token at all.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, vocabulary: int = sys.maxsize) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary
        self.special = set(tokenizer.all_special_ids) | {
            index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self.end_of_turn = self._end_of_turn()

    def prompt_ids(self, instruction: str) -> list[int]:
        """The prompt up to the point where the response begins."""
        if self.tokenizer.chat_template is None:
            bos = self.tokenizer.bos_token_id
            own = self.tokenizer("").input_ids
            prefix = [bos] if bos is not None and own[:1] == [bos] else []
            text = PLAIN_PROMPT.format(instruction=instruction)
            return prefix + self.tokenizer(text, add_special_tokens=False).input_ids
        return self._render([{"role": "user", "content": instruction}], add_generation_prompt=True)

    def encode(self, instruction: str, response: str) -> Example | Unusable:
        """The row as an Example, or the reason why it is none."""
        if not response.strip():
            return Unusable("empty_response", "the response has no text")
        response_ids = self.tokenizer(response, add_special_tokens=False).input_ids
        text_ids = [index for index in response_ids if index not in self.special]
        special = len(response_ids) - len(text_ids)
        # White space between special tokens is no text either.
        if not text_ids or (special and not self.tokenizer.decode(text_ids).strip()):
            return Unusable("only_special_tokens", f"the response is {special} special tokens and no text")
        prompt_ids = self.prompt_ids(instruction)
        if len(prompt_ids) >= self.max_tokens:
            detail = f"the prompt alone has {len(prompt_ids)} tokens, max_tokens is {self.max_tokens}"
            return Unusable("no_response_token_left", detail)
        ids = [*prompt_ids, *response_ids, self.end_of_turn]
        if (largest := max(ids[: self.max_tokens])) >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(largest)
            return Unusable(
                "outside_vocabulary",
                f"token {token!r} is the tokenizer's {largest}, the student's embeddings end at {self.vocabulary - 1}",
            )
        return Example(tuple(ids[: self.max_tokens]), len(prompt_ids), truncated=len(ids) > self.max_tokens)

    def encode_reference(self, rows: Iterable[tuple[str, str, str]]) -> list[Example]:
        """Reference rows (ref_id, instruction, response) as examples, in order.

        Raises:
            StageError: BAD_DATA naming the row, if one cannot be scored or if there is none: a reference
                set with holes would make scores of different runs incomparable.
        """
        examples = []
        for ref_id, instruction, response in rows:
            example = self.encode(instruction, response)
            if isinstance(example, Unusable):
                raise StageError(
                    f"{example.reason}: {example.detail}",
                    code=ExitCode.BAD_DATA,
                    where=f"reference row {ref_id}",
                    hint="resize the student's embeddings to its tokenizer"
                    if example.reason == "outside_vocabulary"
                    else "remove the row from the reference set",
                )
            examples.append(example)
        if not examples:
            raise StageError("the reference set is empty", code=ExitCode.BAD_DATA)
        return examples

    def _render(self, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt
        )
        return list(rendered["input_ids"])

    def _end_of_turn(self) -> int:
        """What the template closes an assistant's turn with; it need not be the EOS token (Gemma's is not)."""
        if self.tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
            for index in reversed(self._render(turns, add_generation_prompt=False)):
                if index in self.special:
                    return index
        if self.tokenizer.eos_token_id is None:
            raise StageError(
                "the student's tokenizer has no end-of-sequence token",
                code=ExitCode.BAD_SETTINGS,
                hint="set eos_token in tokenizer_config.json",
            )
        return int(self.tokenizer.eos_token_id)
