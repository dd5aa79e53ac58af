"""Variable-length causal attention for packed rows, registered with transformers' attention interface.

`segments`: one scaled_dot_product_attention call an example. It computes no masked block and builds no mask,
in any dtype on any device, and on the CPU it is faster than one masked call. `varlen`: torch's flash kernel for
all examples at once; CUDA, fp16 or bf16 only, so gradients (fp32) use `segments`. `padded`: the model's own
attention on padded rows; for models that bring their own attention code.

Shapes: Q query heads, K key-value heads, T tokens of the packed row, D head size.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from inspect import signature
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stages.contract.errors import ExitCode, StageError

Attention = Literal["segments", "varlen", "padded"]

_NAME = "montessori_packed"
_SHORT = 512


def use_packed_attention(model: Any) -> None:
    """Makes a Hugging Face model compute its attention from the arguments of `attention_arguments`.

    Under a name that has no mask function transformers builds no mask either.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _packed)
    model.set_attn_implementation(_NAME)


def require_varlen(device: torch.device) -> None:
    """Raises StageError, BAD_SETTINGS, where torch has no variable-length kernel for this device."""
    from torch.nn.attention.varlen import varlen_attn

    problem = None
    if device.type != "cuda":
        problem = f"attention 'varlen' needs a GPU, and this device is {device.type!r}"
    elif not {"scale", "window_size", "enable_gqa"} <= signature(varlen_attn).parameters.keys():
        problem = f"attention 'varlen' needs a later torch than {torch.__version__}"
    if problem:
        raise StageError(problem, code=ExitCode.BAD_SETTINGS, hint="set attention: segments")


def attention_arguments(attention: Attention, segments: tuple[int, ...] | None, device: torch.device) -> dict[str, Any]:
    """What the model's forward must pass on to the attention of this batch."""
    if segments is None:
        return {}
    if attention == "segments":
        return {"segment_lengths": segments}
    return {"segment_ends": _ends(segments, device), "longest_segment": max(segments)}


@cache
def _ends(segments: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept for good: a CUDA graph (graphs.py) cannot wait for what comes from the host, and reads it where it was."""
    return torch.tensor((0, *segments), dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def _packed(module: Any, *tensors: Tensor, **arguments: Any) -> tuple[Tensor, None]:
    return (_varlen if "segment_ends" in arguments else _segments)(module, *tensors, **arguments)


def _segments(
    module: Any,
    query_BQTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segment_lengths: tuple[int, ...] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    _refuse_sinks(others)
    # Without lengths each row is one example, padded on the right where no token before it looks.
    lengths = list(segment_lengths or query_BQTD.shape[2:3])
    outputs = [
        _causal(query, key, value, scaling, sliding_window, softcap)
        for query, key, value in zip(
            query_BQTD.split(lengths, 2),
            key_BKTD.split(lengths, 2),
            value_BKTD.split(lengths, 2),
            strict=True,
        )
    ]
    return torch.cat(outputs, 2).transpose(1, 2), None


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    length = query.shape[2]
    windowed = window is not None and window < length
    if not windowed and softcap is None:
        with _backends(query):
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    distance = torch.arange(length, device=query.device)
    distance = distance[:, None] - distance[None, :]
    visible = (distance >= 0) & (distance < (window if windowed and window is not None else length))
    if softcap is None:
        return F.scaled_dot_product_attention(query, key, value, visible, scale=scaling, enable_gqa=grouped)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = (torch.tanh(scores / softcap) * softcap).masked_fill(~visible, -torch.inf)
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def _backends(query: Tensor) -> AbstractContextManager[None]:
    """On a CPU the backward pass of a short example is faster by plain products than by torch's flash kernel."""
    if query.device.type == "cpu" and query.requires_grad and query.shape[2] <= _SHORT:
        plain: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return plain
    return nullcontext()


def _varlen(
    module: Any,
    query_BQTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segment_ends: Tensor,
    longest_segment: int,
    **others: Any,
) -> tuple[Tensor, None]:
    from torch.nn.attention.varlen import varlen_attn

    _refuse_sinks(others)
    if softcap is not None:
        raise StageError(
            "attention 'varlen' has no soft cap, which this student needs",
            code=ExitCode.BAD_SETTINGS,
            hint="set attention: segments",
        )
    query_TQD, key_TKD, value_TKD = (x[0].transpose(0, 1) for x in (query_BQTD, key_BKTD, value_BKTD))
    output_TQD = varlen_attn(
        query_TQD,
        key_TKD,
        value_TKD,
        segment_ends,
        segment_ends,
        longest_segment,
        longest_segment,
        scale=scaling,
        # (tokens to the left, tokens to the right): nothing to the right is causal
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=query_TQD.shape[1] != key_TKD.shape[1],
    )
    return output_TQD[None], None


def _refuse_sinks(others: dict[str, Any]) -> None:
    if others.get("s_aux") is not None or others.get("position_bias") is not None:
        raise StageError(
            "packed attention has no attention sinks and no position bias, which this student needs",
            code=ExitCode.BAD_SETTINGS,
            hint="set attention: padded",
        )
