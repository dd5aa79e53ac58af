"""Weights and optimiser state out of DeepSpeed, as plain safetensors.

Every function here is collective: all ranks call it, rank 0 gets the tensors and writes.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.contract.errors import gate
from stages.influence.state import EXP_AVG, EXP_AVG_SQ, WEIGHTS, AdamState

_BETWEEN = 1 << 16  # fp32's numbers from one of bfloat16's to the next
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")


def gathered(model: Any, get: Callable[[Any], Tensor | None], *, writes: bool) -> dict[str, Tensor]:
    """`get` of every parameter by name, whole and in fp32 on the CPU; tied weights once. Empty where not `writes`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensor = get(parameter)
        assert tensor is not None, f"DeepSpeed has no fp32 state of {name}"
        if writes:
            # A copy: DeepSpeed may hand out a view of its flat buffer.
            tensors[name] = tensor.detach().to("cpu", torch.float32, copy=True).reshape(_shape(parameter))
    return tensors


def fp32_weights(model: Any, *, writes: bool) -> dict[str, Tensor]:
    """The master weights.

    Raises:
        StageError: GATE where one is not finite, which the loss of the last step could not show.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = gathered(model, safe_get_full_fp32_param, writes=writes)
    for name, tensor in weights.items():
        if not torch.isfinite(tensor.sum(dtype=torch.float64)):
            raise gate(f"{name} is not finite after the last step", hint="lower learning_rate")
    return weights


def moments(model: Any, key: str, *, writes: bool) -> dict[str, Tensor]:
    """AdamW's `exp_avg` or `exp_avg_sq`."""
    from deepspeed.utils import safe_get_full_optimizer_state

    return gathered(model, lambda parameter: safe_get_full_optimizer_state(parameter, key), writes=writes)


def write_model(model: Any, weights: dict[str, Tensor], source: Path, folder: Path, dtype: torch.dtype) -> None:
    """A Hugging Face folder: `weights` in `dtype`, everything else (tokenizer, template, generation) as in `source`."""
    state = {name: in_dtype(tensor, dtype, name) for name, tensor in weights.items()}
    saved = model.state_dict().keys()
    state |= {name: buffer.to("cpu") for name, buffer in model.named_buffers() if name in saved}
    model.save_pretrained(folder, state_dict=state)
    copy_companions(source, folder)
    _set_dtype(folder / "config.json", dtype)


def in_dtype(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """fp32 `values` as they are saved; the same again for the same values and name.

    In bfloat16 a weight of 0.02 has neighbours 1.2e-4 away, and a training of small steps leaves it between them. To
    the nearest, it would go back to where a released model's weights are: on one of them. So each goes to either of its
    neighbours by chance, to the nearer more often: right on average, and so are the sums that weights are used in.
    """
    if dtype != torch.bfloat16:
        return values.to(dtype)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    chance = torch.randint(_BETWEEN, values.shape, dtype=torch.int32, generator=generator)
    return chance.add_(values.contiguous().view(torch.int32)).bitwise_and_(-_BETWEEN).view(torch.float32).to(dtype)


def write_state(state: AdamState, source: Path, folder: Path) -> None:
    """A warm-up checkpoint that is a Hugging Face folder as well: an index names the fp32 weights as the model's, so
    that the moments beside them are never taken for weights."""
    copy_companions(source, folder)
    state.save(folder)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(state.weights, WEIGHTS)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    _set_dtype(folder / "config.json", torch.float32)


def changed_share(weights: dict[str, Tensor], source: Path, dtype: torch.dtype) -> float | None:
    """Share of the weights that differ from the source's once both are in `dtype`; None where names do not match."""
    from safetensors import safe_open

    changed = total = 0
    for path in source.glob("*.safetensors"):
        if path.name in (EXP_AVG, EXP_AVG_SQ):
            continue  # a warm-up checkpoint's moments have the weights' names
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  (not a mapping)
                if name in weights:
                    changed += int((stored.get_tensor(name).to(dtype) != in_dtype(weights[name], dtype, name)).sum())
                    total += weights[name].numel()
    return changed / total if total else None


def copy_companions(source: Path, folder: Path) -> None:
    """Config, tokenizer and templates as they were: a trainer writes its own pad token and caches into them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.suffix not in _WEIGHTS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)


def own_dtype(source: Path) -> torch.dtype:
    """The precision a model's folder says that it is stored in; fp32 where it does not say."""
    config = json.loads((source / "config.json").read_text())
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _set_dtype(path: Path, dtype: torch.dtype) -> None:
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n")


def _shape(parameter: Any) -> torch.Size:
    """A ZeRO-3 parameter is empty on its own; DeepSpeed keeps its shape aside."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
