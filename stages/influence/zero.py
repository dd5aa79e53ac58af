"""Ranks over DeepSpeed's ZeRO-3: each holds a part of every parameter, and layers are gathered as a pass needs them.

DeepSpeed partitions the student and gathers its modules; it is given no optimizer, because probes never train. θ', θ̄
and the checkpoint are exchanged by exchanging the parts, which copies nothing. DeepSpeed keeps no parameter gathered
between passes here (thresholds of zero): one that stayed would be of the weights before the exchange.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stages.influence.scores import Floats
from stages.influence.state import build_student

_CONFIG: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_max_live_parameters": 0,
        "stage3_prefetch_bucket_size": 0,
    },
    "steps_per_print": 1_000_000_000,
}


class Zero:
    """This process's part, once `torch.distributed` is initialised; see ranks.py."""

    def __init__(self, device: torch.device) -> None:
        self.count, self.rank, self.device = dist.get_world_size(), dist.get_rank(), device
        self._offload: Any = None

    def build(self, folder: Path) -> Any:
        """`build_student`, of which no rank ever holds the whole."""
        import deepspeed

        # Models import it, and it cannot be imported while zero.Init has exchanged torch's constructors.
        import_module("torch._dynamo")
        # No dtype: on a CPU one that is given is read as bf16, and then so are rotary frequencies.
        with deepspeed.zero.Init(config_dict_or_path=_CONFIG):
            model = build_student(folder)
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(self.device), persistent=False)
        self._offload = deepspeed.initialize(model=model, config=_CONFIG)[0].optimizer
        # Passes begin at the body: the head is no module call here (head.py), and only the top module counts steps.
        coordinator = self._offload.get_param_coordinator()
        model.base_model.register_forward_pre_hook(lambda *_: coordinator.reset_step(), prepend=True)
        return model

    def shapes(self, model: Any) -> dict[str, torch.Size]:
        return {name: parameter.ds_shape for name, parameter in model.named_parameters()}

    def span(self, size: int) -> tuple[int, int, int]:
        part = -(-size // self.count)
        first, last = min(self.rank * part, size), min((self.rank + 1) * part, size)
        return first, last, part - (last - first)

    def install(self, model: Any, weights: dict[str, Tensor], device: torch.device) -> None:
        self._exchange(model, weights)

    @contextmanager
    def using(self, model: Any, weights: dict[str, Tensor]) -> Iterator[None]:
        own = {name: parameter.ds_tensor.data for name, parameter in model.named_parameters()}
        self._exchange(model, weights)
        try:
            yield
        finally:
            self._exchange(model, own)

    def _exchange(self, model: Any, weights: dict[str, Tensor]) -> None:
        self._offload.partition_all_parameters()
        for name, parameter in model.named_parameters():
            parameter.ds_tensor.data = weights[name]
            parameter.data = torch.empty(0, dtype=weights[name].dtype, device=self.device)

    @contextmanager
    def gathered(self, *parameters: Tensor | None) -> Iterator[None]:
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter for parameter in parameters if parameter is not None]):
            yield

    def backward_done(self) -> None:
        # The embedding's input has no gradient, so that DeepSpeed does not see its backward pass end.
        self._offload.release_backward_leftovers()

    def own(self, gradient: Tensor) -> Tensor:
        first, last, padding = self.span(gradient.numel())
        return torch.nn.functional.pad(gradient.reshape(-1)[first:last], (0, padding))

    def spread(self, gradient: Tensor) -> Tensor:
        padding = -gradient.numel() % self.count
        sent = gradient.reshape(-1)
        if padding:  # `pad` copies in any case
            sent = torch.nn.functional.pad(sent, (0, padding))
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        return received.view(self.count, -1)

    def sum(self, values: Floats) -> Floats:
        total = torch.from_numpy(np.array(values, np.float64)).to(self.device)
        dist.all_reduce(total)
        summed: Floats = total.cpu().numpy()
        return summed
