"""Requests to a student, as short as the answers of a task allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.asking.settings import AskingSettings
from stages.generation.prompts import chat
from stages.generation.request import Completion, Message, Request
from stages.generation.settings import SamplingSettings
from stages.generation.teacher import Generator
from stages.influence.examples import PLAIN_NEXT_TURN
from stages.tasks.kinds import extract, same

# What ends an answer that is told in a line of its own, beside the line; of kinds that are not here, a sentence's end.
_ENDS: dict[str, tuple[str, ...]] = {"boolean": (".",), "yes_no": (".",), "choice": (")", "."), "brackets": ()}
_SENTENCE_END = ". "  # not every full stop: 3.5 and U.S. have some of their own
_NEXT_TURN = (PLAIN_NEXT_TURN, "\nQuestion:", "\nQ:")
_CHARACTERS_A_TOKEN = 2  # or more: so that no tokenizer needs more tokens than are granted
_SPARE_TOKENS = 4


@dataclass(frozen=True)
class Answered:
    """What became of one question: `answer` is None where none could be parsed, which is never correct."""

    output: str
    answer: str | None
    correct: bool
    finish_reason: str
    output_tokens: int


class Asker:
    """Asks the input `student` questions of tasks.

    Args:
        tasks: rows of the table `tasks`.
        items: every item that may be asked: the longest answer of a task bounds its outputs.
    """

    def __init__(
        self,
        student: Generator,
        settings: AskingSettings,
        tasks: Sequence[Mapping[str, Any]],
        items: Sequence[Mapping[str, Any]],
    ) -> None:
        self._student, self._settings = student, settings
        self._tasks = {each["task"]: each for each in tasks}
        longest: dict[str, int] = {}
        for item in items:
            longest[item["task"]] = max(longest.get(item["task"], 0), len(item["answer"]))
        self._of_sentences = {item["task"] for item in items if _SENTENCE_END in item["answer"]}  # "the U.S. Army"
        self._tokens = {
            task: settings.reasoning_tokens + math.ceil(length / _CHARACTERS_A_TOKEN) + _SPARE_TOKENS
            for task, length in longest.items()
        }

    def request(self, item: Mapping[str, Any], shots: Sequence[tuple[str, str]]) -> Request:
        """A question after `shots`, (question, response) pairs. The shots come first: a prefix that others share."""
        messages: list[Message] = []
        for question, response in shots:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": response})
        if self._settings.system:
            messages.insert(0, {"role": "system", "content": self._settings.system})
        direct = self._settings.reasoning_tokens == 0
        prompt = self._student.conversation(
            [*messages, *chat(item["question"])], self._settings.begun if direct else ""
        )
        sampling = SamplingSettings(temperature=0.0, top_p=1.0, max_tokens=self._tokens[item["task"]])
        # Behind the begun turn a line is an answer; where the student reasons, only its turn ends it. A model that has
        # no chat template may not end its turn: what it asks itself next is no part of the answer.
        stop = ("\n", *self._ends(item["task"])) if direct else _NEXT_TURN
        return Request(prompt, 0, sampling, stop=stop)

    def _ends(self, task: str) -> tuple[str, ...]:
        return _ENDS.get(self._tasks[task]["kind"], () if task in self._of_sentences else (_SENTENCE_END,))

    def ask(self, asked: Sequence[tuple[Mapping[str, Any], Request]]) -> list[Answered]:
        """The answers to (item, request) pairs, in order."""
        completions = self._student.generate([request for _, request in asked])
        return [self._answered(item, completion) for (item, _), completion in zip(asked, completions, strict=True)]

    def _answered(self, item: Mapping[str, Any], completion: Completion) -> Answered:
        task = self._tasks[item["task"]]
        begun = "" if self._settings.reasoning_tokens else f"{self._settings.begun} "
        complete = completion.finish_reason != "length"
        output = completion.text
        for each in _NEXT_TURN:  # engines leave the text that stopped them
            output = output.removesuffix(each)
        text = begun + output if output.strip() else ""
        answer = extract(task["kind"], text, task["labels"], complete=complete) if text else None
        return Answered(
            completion.text,
            answer,
            same(task["kind"], answer, item["answer"], task["labels"]),
            completion.finish_reason,
            completion.output_tokens,
        )
