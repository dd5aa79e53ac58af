"""Samples instructions: prompt i of a run is the same prompt, with the same seeds, in whichever shard it falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stages.contract.canonical import content_id
from stages.contract.context import StageContext
from stages.contract.tables import make_table
from stages.generation.gate import Gate, tally
from stages.generation.parsing import CLOSING, parse_instruction
from stages.generation.prompts import render
from stages.generation.request import Completion, Prompt, Request
from stages.generation.seeds import random_for, sampling_seed
from stages.generation.teacher import Teacher
from stages.instructions.examples import Pool
from stages.instructions.settings import InstructionsSettings

SCHEMA = pa.schema(
    [
        ("instruction_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("seed_ids", pa.list_(pa.string())),
        ("sample", pa.int32()),
        ("sampling_seed", pa.int64()),
        ("output", pa.string()),
        ("instruction", pa.string()),
        ("reason", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("teacher", pa.string()),
    ]
)


@dataclass(frozen=True)
class _Numbered:
    """A prompt of the run: its id does not name the teacher, so that two teachers' outputs can be compared in pairs."""

    prompt: Prompt
    prompt_id: str
    seed_ids: list[str]


def run(context: StageContext) -> None:
    settings: InstructionsSettings = context.settings
    pool = Pool(
        context.table("seeds", "seeds"),
        context.table("previous") if context.has("previous") else None,
        count=settings.examples,
        generated=settings.generated_examples,
    )
    teacher = Teacher(context)
    gate = Gate(context, "parsed", "least_parsed", least=settings.least_parsed, after=settings.gate_after)
    numbers = pa.table({"number": pa.array(range(settings.prompts), pa.int64())})
    for chunk in context.chunks(numbers, unit="prompts"):
        prompts = [_numbered(number, pool, teacher, settings) for number in chunk.rows["number"].to_pylist()]
        rows = _sampled(prompts, teacher, settings)
        figures = tally("parsed", (row["reason"] for row in rows))
        chunk.commit({"rows": make_table(rows, SCHEMA)}, figures=figures)
        gate.add(figures)
    context.publish(figures=gate.figures)


def _numbered(number: int, pool: Pool, teacher: Teacher, settings: InstructionsSettings) -> _Numbered:
    drawn = pool.draw(random_for("examples", settings.seed, number))
    examples = [example.instruction for example in drawn]
    prompt = teacher.prompt(render(settings.template, examples=examples), render(settings.prefill, examples=examples))
    # The number is in it, since few seeds give equal prompts sooner or later.
    prompt_id = content_id("prompt", settings.seed, number, prompt.text)
    return _Numbered(prompt, prompt_id, [example.id for example in drawn])


def _sampled(prompts: Sequence[_Numbered], teacher: Teacher, settings: InstructionsSettings) -> list[dict[str, Any]]:
    asked = [
        (prompt, sample, sampling_seed("instruction", settings.seed, prompt.prompt_id, sample))
        for prompt in prompts
        for sample in range(settings.samples)
    ]
    completions = teacher.generate(
        [Request(prompt.prompt, seed, settings.sampling, stop=(CLOSING,)) for prompt, _, seed in asked]
    )
    return [
        _row(prompt, sample, seed, completion, teacher.digest)
        for (prompt, sample, seed), completion in zip(asked, completions, strict=True)
    ]


def _row(prompt: _Numbered, sample: int, seed: int, completion: Completion, teacher: str) -> dict[str, Any]:
    instruction, reason = parse_instruction(completion.text, prompt.prompt.prefill)
    if completion.finish_reason == "prompt_too_long":
        reason = "prompt_too_long"
    return {
        "instruction_id": content_id("instruction", prompt.prompt_id, sample, teacher),
        "prompt_id": prompt.prompt_id,
        "prompt": prompt.prompt.text,
        "seed_ids": prompt.seed_ids,
        "sample": sample,
        "sampling_seed": seed,
        "output": completion.text,
        "instruction": instruction,
        "reason": reason,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "output_tokens": completion.output_tokens,
        "teacher": teacher,
    }
