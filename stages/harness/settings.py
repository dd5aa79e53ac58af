"""Settings of `harness`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.contract.spec import StageSettings, StageSpec, resource

BUNDLED = Path(__file__).parent / "tasks"


class HarnessSettings(StageSettings):
    """Settings of `harness`."""

    tasks: tuple[str, ...] = Field(
        ("montessori_choices",),
        min_length=1,
        description="names of lm-eval tasks or groups, such as arc_easy, gsm8k or mmlu. montessori_choices is bundled "
        "and needs no network: 24 easy questions, to try it with",
    )
    metrics: dict[str, str] = Field(
        {}, description="which metric of a task counts, such as {arc_easy: acc_norm}; its first where not named"
    )
    backend: Literal["hf", "vllm"] = Field("hf", description="lm-eval's model class")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="precision of the weights")
    fewshot: int | None = Field(None, ge=0, description="examples in the prompt; the task's own number if not given")
    limit: int | None = Field(None, ge=1, description="documents of a task, from the top; all if not given")
    chat_template: bool = Field(False, description="put the prompt into the student's chat template")
    max_tokens: int | None = Field(
        None, ge=16, description="longest prompt and output; the model's own if not given, and 2048 of vLLM on a CPU"
    )
    task_folder: str | None = Field(
        None, description="a folder with further task definitions (lm-eval's include_path) on the machines of the run"
    )
    seed: int = Field(0, ge=0, description="seed of few-shot examples and sampling")
    batch_size: int = resource(8, ge=1, description="hf: documents computed at once")
    chunk_rows: int = resource(1, ge=1, description="student and task pairs committed as one")


def documents_of(settings: HarnessSettings) -> int | None:
    """Documents that each student is asked of; None where a task is not bundled, since only lm-eval knows its own."""
    counts = [_bundled_documents(task, settings.limit) for task in settings.tasks]
    return None if None in counts else sum(filter(None, counts))


def _bundled_documents(task: str, limit: int | None) -> int | None:
    rows = BUNDLED / f"{task}.jsonl"
    if not rows.is_file():
        return None
    count = sum(bool(line.strip()) for line in rows.read_text(encoding="utf-8").splitlines())
    return min(count, limit or count)


SPEC = StageSpec(
    name="harness",
    version=3,
    settings=HarnessSettings,
    about="students on tasks of lm-evaluation-harness",
    inputs=("student.*",),
    sharded=True,
    packages=("lm-eval", "torch", "transformers"),
)
