"""questions: tasks, teacher → drafted questions; prompt i of a task is the same prompt in whichever shard it falls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.errors import bad_settings
from stages.contract.tables import make_table
from stages.generation.gate import Gate, tally
from stages.generation.prompts import render
from stages.generation.request import Completion, Prompt, Request
from stages.generation.seeds import random_for, sampling_seed
from stages.generation.teacher import Teacher
from stages.questions.settings import QuestionsSettings

OPENING, CLOSING = "<question>", "</question>"
# `instructions`'s columns, so that whoever reads those reads these; a question is the instruction of its answer.
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("instruction_id", "prompt_id", "task", "prompt")]
    + [("seed_ids", pa.list_(pa.string())), ("sample", pa.int32()), ("sampling_seed", pa.int64())]
    + [(name, pa.string()) for name in ("output", "instruction", "reason", "finish_reason")]
    + [("prompt_tokens", pa.int32()), ("output_tokens", pa.int32()), ("teacher", pa.string())]
)


@dataclass(frozen=True)
class _Numbered:
    prompt: Prompt
    prompt_id: str
    task: str
    seed_ids: list[str]


def run(context: StageContext) -> None:
    settings: QuestionsSettings = context.settings
    tasks = {each["task"]: each for each in context.table("seeds", "tasks").to_pylist()}
    seeds = _seeds(context, settings.examples)
    teacher = Teacher(context)
    gate = Gate(context, "parsed", "least_parsed", least=settings.least_parsed, after=settings.gate_after)
    numbered = [{"task": task, "number": number} for task in sorted(tasks) for number in range(settings.prompts)]
    for chunk in context.chunks(pa.Table.from_pylist(numbered), unit="prompts"):
        prompts = [
            _numbered(tasks[row["task"]], row["number"], seeds, teacher, settings) for row in chunk.rows.to_pylist()
        ]
        rows = _drafted(prompts, teacher, settings)
        figures = tally("parsed", (row["reason"] for row in rows))
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures=figures)
        gate.add(figures)
    context.publish(figures=gate.figures)


def _seeds(context: StageContext, needed: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for each in context.table("seeds", "items").to_pylist():
        if each["role"] == "seed":
            found.setdefault(each["task"], []).append(each)
    for task, items in found.items():
        if len(items) < needed:
            raise bad_settings(
                f"a prompt shows {needed} seed questions, and {task} has {len(items)}",
                where="questions.examples",
                hint="raise tasks.seeds, or set examples lower",
            )
    return {task: sorted(items, key=lambda each: str(each["item_id"])) for task, items in found.items()}


def _numbered(
    task: Mapping[str, Any],
    number: int,
    seeds: Mapping[str, Sequence[Mapping[str, Any]]],
    teacher: Teacher,
    settings: QuestionsSettings,
) -> _Numbered:
    name = task["task"]
    drawn = random_for("questions", settings.seed, name, number).sample(seeds[name], settings.examples)
    values = {"about": task["about"], "examples": [each["question"] for each in drawn], "more": settings.more}
    prompt = teacher.prompt(render(settings.template, **values), render(settings.prefill, **values))
    prompt_id = content_id("questions", settings.seed, name, number, prompt.text)
    return _Numbered(prompt, prompt_id, name, [each["item_id"] for each in drawn])


def _drafted(prompts: Sequence[_Numbered], teacher: Teacher, settings: QuestionsSettings) -> list[dict[str, Any]]:
    seeds = [sampling_seed("questions", settings.seed, prompt.prompt_id) for prompt in prompts]
    requests = [Request(prompt.prompt, seed, settings.sampling) for prompt, seed in zip(prompts, seeds, strict=True)]
    completions = teacher.generate(requests)
    return [
        row
        for prompt, seed, completion in zip(prompts, seeds, completions, strict=True)
        for row in _rows(prompt, seed, completion, teacher.digest, settings.more)
    ]


def parse_questions(output: str, prefill: str, more: int) -> list[str]:
    """The questions between tags in what followed a begun turn: at most `more`, none empty; an unclosed one is none."""
    begun = prefill.rstrip().endswith(OPENING) and not output.lstrip().startswith(OPENING)
    text = f"{OPENING if begun else ''}{output}"
    found = [each.rpartition(OPENING)[2].strip() for each in re.findall(f"{OPENING}(.*?){CLOSING}", text, re.DOTALL)]
    return [each for each in found if each][:more]


def _rows(prompt: _Numbered, seed: int, completion: Completion, teacher: str, more: int) -> list[dict[str, Any]]:
    """A row for each question asked for: those that did not come have a reason."""
    found = parse_questions(completion.text, prompt.prompt.prefill, more)
    missing = "prompt_too_long" if completion.finish_reason == "prompt_too_long" else "not_written"
    return [
        {
            "instruction_id": content_id("question", prompt.prompt_id, sample, teacher),
            "prompt_id": prompt.prompt_id,
            "task": prompt.task,
            "prompt": prompt.prompt.text,
            "seed_ids": prompt.seed_ids,
            "sample": sample,
            "sampling_seed": seed,
            # What DPO teaches after the prompt: this question as if it had come first.
            "output": f"{_head(prompt.prompt.prefill)}{found[sample]}{CLOSING}"
            if sample < len(found)
            else completion.text,
            "instruction": found[sample] if sample < len(found) else None,
            "reason": None if sample < len(found) else missing,
            "finish_reason": completion.finish_reason,
            # Once a prompt, so that a sum counts what was generated.
            "prompt_tokens": completion.prompt_tokens if sample == 0 else 0,
            "output_tokens": completion.output_tokens if sample == 0 else 0,
            "teacher": teacher,
        }
        for sample in range(more)
    ]


def _head(prefill: str) -> str:
    return "" if prefill.rstrip().endswith(OPENING) else OPENING
