"""rationales: questions, tasks, teacher → rationales, in the columns that `responses` has and some more.

`prompt` is always the naive one, whatever the rationale was written with: DPO is to teach the teacher to reason like
that without being told how (ARTE's prompt erasure).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.errors import bad_data, bad_settings
from stages.contract.tables import make_table
from stages.generation.gate import Gate, tally
from stages.generation.prompts import chat
from stages.generation.request import Completion, Message, Prompt, Request
from stages.generation.seeds import random_for, sampling_seed
from stages.generation.teacher import Teacher
from stages.rationales.settings import RationalesSettings, TaskPrompts
from stages.responses.usable import reason_against
from stages.tasks.kinds import extract

SCHEMA = pa.schema(
    [("response_id", pa.string()), ("instruction_id", pa.string()), ("prompt_id", pa.string())]
    + [("sample", pa.int32()), ("sampling_seed", pa.int64())]
    + [(name, pa.string()) for name in ("instruction", "response", "finish_reason")]
    + [("usable", pa.bool_()), ("reason", pa.string()), ("prompt_tokens", pa.int32()), ("output_tokens", pa.int32())]
    + [(name, pa.string()) for name in ("split", "teacher", "task", "way", "answer", "prompt", "output")]
)
Row = dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    question: Row
    sample: int
    way: str
    naive: Prompt
    request: Request


def run(context: StageContext) -> None:
    settings: RationalesSettings = context.settings
    questions = context.table("instructions")
    if questions.num_rows == 0:
        raise bad_data("there is no question to answer", where=context.task.inputs["instructions"].digest)
    tasks = {each["task"]: each for each in context.table("seeds", "tasks").to_pylist()}
    prompts = _prompts(settings, sorted(tasks))
    shots = _shots(context, settings.shots)
    teacher = Teacher(context)
    gate = Gate(context, "usable", "least_usable", least=settings.least_usable, after=settings.gate_after)
    for chunk in context.chunks(questions, unit="questions"):
        asked = [
            each
            for question in chunk.rows.to_pylist()
            for each in _asked(question, prompts[question["task"]], shots, teacher, settings)
        ]
        completions = teacher.generate([each.request for each in asked])
        rows = [
            _row(each, completion, tasks[each.question["task"]], teacher.digest, settings)
            for each, completion in zip(asked, completions, strict=True)
        ]
        figures = tally("usable", (row["reason"] for row in rows))
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures=figures)
        gate.add(figures)
    context.publish(figures=gate.figures)


def _prompts(settings: RationalesSettings, tasks: Sequence[str]) -> dict[str, TaskPrompts]:
    found = {task: settings.of_task(task) for task in tasks}
    missing = [task for task, prompts in found.items() if prompts is None]
    if missing:
        raise bad_settings(
            f"{missing[0]} has no reasoning prompts",
            where="rationales.prompts",
            hint=f"add {missing[0]}.yaml or default.yaml",
        )
    return {task: prompts for task, prompts in found.items() if prompts is not None}


def _shots(context: StageContext, needed: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for each in context.table("seeds", "items").to_pylist() if needed else ():
        if each["role"] == "seed":
            found.setdefault(each["task"], []).append(each)
    for task, items in found.items():
        items.sort(key=lambda each: str(each["item_id"]))
        if len(items) < needed:
            raise bad_settings(
                f"{needed} shots are asked for, and {task} has {len(items)} seeds", where="rationales.shots"
            )
    return found


def _asked(
    question: Row, prompts: TaskPrompts, shots: Mapping[str, list[Row]], teacher: Teacher, settings: RationalesSettings
) -> list[_Asked]:
    name = question["instruction_id"]
    shown = random_for("shots", settings.seed, name).sample(shots[question["task"]], settings.shots) if shots else []

    def prompt(way: str) -> Prompt:
        messages: list[Message] = []
        for each in shown:
            messages.append({"role": "user", "content": _user(each["question"], way, settings)})
            messages.append({"role": "assistant", "content": each["rationale"]})
        last = chat(_user(question["instruction"], way, settings), None if messages else settings.system)
        if messages and settings.system:
            messages.insert(0, {"role": "system", "content": settings.system})
        return teacher.conversation([*messages, *last], settings.prefill)

    naive = prompt(prompts.naive)
    ways = prompts.reasoning if settings.style == "reasoning" else (prompts.naive,) * settings.samples
    return [
        _Asked(
            question,
            sample,
            way,
            naive,
            Request(
                naive if way == prompts.naive else prompt(way),
                sampling_seed("rationale", settings.seed, name, sample),
                settings.sampling,
            ),
        )
        for sample, way in enumerate(ways)
    ]


def _user(question: str, way: str, settings: RationalesSettings) -> str:
    return f"{question}\n\n{way} {settings.ending}".rstrip()


def _row(asked: _Asked, completion: Completion, task: Row, teacher: str, settings: RationalesSettings) -> Row:
    question = asked.question
    response = f"{settings.prefill}{completion.text}".strip()
    reason = reason_against(completion, keep_truncated=settings.keep_truncated)
    answer = extract(task["kind"], response, task["labels"], complete=completion.finish_reason != "length")
    if reason is None and answer is None:
        reason = "no_answer"
    return {
        "response_id": content_id("rationale", question["instruction_id"], asked.sample, teacher, settings.style),
        "instruction_id": question["instruction_id"],
        "prompt_id": question["prompt_id"],
        "sample": asked.sample,
        "sampling_seed": asked.request.seed,
        "instruction": question["instruction"],
        "response": response,
        "finish_reason": completion.finish_reason,
        "usable": reason is None,
        "reason": reason,
        "prompt_tokens": completion.prompt_tokens,
        "output_tokens": completion.output_tokens,
        "split": question["split"],
        "teacher": teacher,
        "task": question["task"],
        "way": asked.way,
        "answer": answer,
        "prompt": asked.naive.text,
        "output": completion.text,
    }
