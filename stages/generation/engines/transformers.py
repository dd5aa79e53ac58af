"""Sampling with plain transformers: the fallback where vLLM is not to be had, and what tests compare with.

Shapes: B requests of a batch, T tokens with padding, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.generation.engines.base import CheckStop
from stages.generation.engines.context import context_length
from stages.generation.request import Completion, FinishReason, Request, cut_at_stop, local_ids, too_long
from stages.generation.settings import EngineSettings, SamplingSettings
from stages.precision import weights_dtype


@dataclass
class _Row:
    """One request under way."""

    request: Request
    room: int  # tokens that may still be generated
    generator: torch.Generator
    output: list[int] = field(default_factory=list)
    done: Completion | None = None


class TransformersEngine:
    """Batches padded on the left. Each request has a random generator of its own, so that what it draws
    depends on its seed and not on its neighbours; only rounding does (batch_size 1 removes even that).
    """

    devices = 1

    def __init__(self, settings: EngineSettings, model: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
        dtype = weights_dtype(settings.dtype, self._device.type)
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(self._device).eval()
        self._batch_size = settings.batch_size
        self._max_model_len = min(settings.max_model_len, context_length(model))
        ends = self._model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = {end for end in (*ends, self._tokenizer.eos_token_id) if end is not None}

    def generate(self, requests: Sequence[Request], check_stop: CheckStop) -> list[Completion]:
        answers: dict[int, Completion] = {}
        fitting: list[int] = []
        for place, request in enumerate(requests):
            tokens = len(local_ids(request.prompt))
            if tokens < self._max_model_len:
                fitting.append(place)
            else:
                answers[place] = too_long(tokens)
        # Neighbours of about the same length waste little padding.
        fitting.sort(key=lambda place: len(local_ids(requests[place].prompt)))
        for start in range(0, len(fitting), self._batch_size):
            batch = fitting[start : start + self._batch_size]
            answers.update(zip(batch, self._batch([requests[place] for place in batch], check_stop), strict=True))
        return [answers[place] for place in range(len(requests))]

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request], check_stop: CheckStop) -> list[Completion]:
        rows = [self._row(request) for request in requests]
        prompts = [local_ids(request.prompt) for request in requests]
        longest = max(map(len, prompts))
        pad = next(iter(self._ends), 0)  # masked: any id does
        ids_BT = torch.tensor([[pad] * (longest - len(ids)) + list(ids) for ids in prompts], device=self._device)
        mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=self._device)
        position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
        cache: Any = None
        while True:
            check_stop()
            answer = self._model(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                position_ids=position_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = answer.past_key_values
            logits_BV = answer.logits[:, -1].float().cpu()
            tokens = [
                pad if row.done else self._next(row, logits_V) for row, logits_V in zip(rows, logits_BV, strict=True)
            ]
            if all(row.done for row in rows):
                return [row.done for row in rows if row.done]
            ids_BT = torch.tensor(tokens, device=self._device)[:, None]
            mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], dim=1)
            position_BT = position_BT[:, -1:] + 1

    def _row(self, request: Request) -> _Row:
        room = min(request.sampling.max_tokens, self._max_model_len - len(local_ids(request.prompt)))
        return _Row(request, room, torch.Generator().manual_seed(request.seed))

    def _next(self, row: _Row, logits_V: Tensor) -> int:
        """Draws the row's next token and finishes the row if that was its last."""
        prompt = local_ids(row.request.prompt)
        token = draw(penalised(logits_V, prompt, row.output, row.request.sampling), row.request.sampling, row.generator)
        row.output.append(token)
        ended, full = token in self._ends, len(row.output) >= row.room
        if ended or full or row.request.stop:
            text = self._tokenizer.decode(row.output, skip_special_tokens=True)
            cut = cut_at_stop(text, row.request.stop)
            if ended or full or cut is not None:
                reason: FinishReason = "stop" if ended or cut is not None else "length"
                row.done = Completion(text if cut is None else cut, reason, len(prompt), len(row.output))
        return token


def penalised(logits_V: Tensor, prompt: Sequence[int], output: Sequence[int], sampling: SamplingSettings) -> Tensor:
    """Logits [V] after repetition penalty (prompt and output) and presence penalty (output), as vLLM applies them."""
    if sampling.repetition_penalty == 1 and sampling.presence_penalty == 0:
        return logits_V
    logits_V = logits_V.clone()
    seen = torch.tensor(sorted({*prompt, *output}))
    logits_V[seen] = torch.where(
        logits_V[seen] > 0,
        logits_V[seen] / sampling.repetition_penalty,
        logits_V[seen] * sampling.repetition_penalty,
    )
    if output:
        logits_V[torch.tensor(sorted(set(output)))] -= sampling.presence_penalty
    return logits_V


def draw(logits_V: Tensor, sampling: SamplingSettings, generator: torch.Generator) -> int:
    """One token out of logits [V]: temperature, then top-k, then top-p, then one uniform number through the CDF."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    sorted_V, token_V = torch.sort(
        torch.softmax(logits_V.double() / sampling.temperature, dim=-1), descending=True, stable=True
    )
    if sampling.top_k is not None:
        sorted_V = sorted_V[: sampling.top_k] / sorted_V[: sampling.top_k].sum()
    cumulative_V = sorted_V.cumsum(0)
    kept = int((cumulative_V - sorted_V < sampling.top_p).sum())  # the token that crosses top_p is in
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative_V[kept - 1]
    place = int(torch.searchsorted(cumulative_V[:kept], point, right=True))
    return int(token_V[min(place, kept - 1)])
