"""Samples responses; one that a student should not learn from stays as a row with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.errors import bad_data
from stages.contract.tables import make_table
from stages.generation.gate import Gate, tally
from stages.generation.request import Completion, Request
from stages.generation.seeds import sampling_seed
from stages.generation.teacher import Teacher
from stages.responses.settings import ResponsesSettings
from stages.responses.usable import reason_against

SCHEMA = pa.schema(
    [
        ("response_id", pa.string()),
        ("instruction_id", pa.string()),
        ("prompt_id", pa.string()),
        # What the teacher was given and wrote, to the character: DPO on responses trains on this text.
        ("prompt", pa.string()),
        ("output", pa.string()),
        ("sample", pa.int32()),
        ("sampling_seed", pa.int64()),
        ("instruction", pa.string()),
        ("response", pa.string()),
        ("finish_reason", pa.string()),
        ("usable", pa.bool_()),
        ("reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("split", pa.string()),
        ("teacher", pa.string()),
    ]
)


def run(context: StageContext) -> None:
    settings: ResponsesSettings = context.settings
    instructions = context.table("instructions")
    if instructions.num_rows == 0:
        raise bad_data("there is no instruction to answer", where=context.task.inputs["instructions"].digest)
    teacher = Teacher(context)
    gate = Gate(context, "usable", "least_usable", least=settings.least_usable, after=settings.gate_after)
    for chunk in context.chunks(instructions, unit="instructions"):
        rows = _answered(chunk.rows.to_pylist(), teacher, settings)
        figures = tally("usable", (row["reason"] for row in rows))
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures=figures)
        gate.add(figures)
    context.publish(figures=gate.figures)


def _answered(
    instructions: Sequence[dict[str, Any]], teacher: Teacher, settings: ResponsesSettings
) -> list[dict[str, Any]]:
    asked, requests = [], []
    for instruction in instructions:
        prompt = teacher.prompt(instruction["instruction"])
        for sample in range(settings.samples_of(instruction["split"])):
            seed = sampling_seed("response", settings.seed, instruction["instruction_id"], sample)
            asked.append((instruction, sample))
            requests.append(Request(prompt, seed, settings.sampling))
    completions = teacher.generate(requests)
    return [
        _row(instruction, sample, request, completion, teacher.digest, settings)
        for (instruction, sample), request, completion in zip(asked, requests, completions, strict=True)
    ]


def _row(
    instruction: dict[str, Any],
    sample: int,
    request: Request,
    completion: Completion,
    teacher: str,
    settings: ResponsesSettings,
) -> dict[str, Any]:
    reason = reason_against(completion, keep_truncated=settings.keep_truncated)
    return {
        "response_id": content_id("response", instruction["instruction_id"], sample, teacher),
        "instruction_id": instruction["instruction_id"],
        "prompt_id": instruction["prompt_id"],
        "prompt": request.prompt.text,
        "output": completion.text,
        "sample": sample,
        "sampling_seed": request.seed,
        "instruction": instruction["instruction"],
        "response": completion.text.strip(),
        "finish_reason": completion.finish_reason,
        "usable": reason is None,
        "reason": reason,
        "prompt_tokens": completion.prompt_tokens,
        "output_tokens": completion.output_tokens,
        "split": instruction["split"],
        "teacher": teacher,
    }
