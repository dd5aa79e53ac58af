"""A warm-up checkpoint: the student's θ and AdamW's m, v in fp32, under the names of the Hugging Face state dict.

The folder is a Hugging Face folder (config, tokenizer) with

    weights.safetensors  exp_avg.safetensors  exp_avg_sq.safetensors
    optimizer.json       {"step", "lr", "betas", "eps", "weight_decay", "adam_w_mode"}

Tied weights are there once, under the name that `named_parameters()` gives them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.contract.errors import ExitCode, StageError
from stages.influence.adam import AdamStep
from stages.influence.ranks import Alone, Ranks

WEIGHTS = "weights.safetensors"
EXP_AVG = "exp_avg.safetensors"
EXP_AVG_SQ = "exp_avg_sq.safetensors"
OPTIMIZER = "optimizer.json"

_ANOTHER = "is this the checkpoint of another model?"


@dataclass(frozen=True)
class AdamState:
    """θ, m, v by parameter name (fp32, never written) and the optimiser's constants; `step` steps are done."""

    weights: dict[str, Tensor]
    exp_avg: dict[str, Tensor]
    exp_avg_sq: dict[str, Tensor]
    step: int
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float

    def next_step(self, lr: float | None = None) -> AdamStep:
        """The constants of the step after this checkpoint, at its own or another learning rate."""
        return AdamStep(self.lr if lr is None else lr, *self.betas, self.eps, self.weight_decay, self.step + 1)

    def to(self, device: torch.device) -> AdamState:
        def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device) for name, tensor in tensors.items()}

        weights, exp_avg, exp_avg_sq = moved(self.weights), moved(self.exp_avg), moved(self.exp_avg_sq)
        return replace(self, weights=weights, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)

    def save(self, folder: Path) -> None:
        """Writes the four files; config and tokenizer are the caller's (`save_pretrained`)."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in (
            (WEIGHTS, self.weights),
            (EXP_AVG, self.exp_avg),
            (EXP_AVG_SQ, self.exp_avg_sq),
        ):
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
        constants = {
            "step": self.step,
            "lr": self.lr,
            "betas": list(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "adam_w_mode": True,
        }
        (folder / OPTIMIZER).write_text(json.dumps(constants, indent=2) + "\n")


def load_state(folder: Path, model: Any, ranks: Ranks | None = None) -> AdamState:
    """Reads and checks a checkpoint for `model`; of several ranks each reads its own part, flattened.

    Raises:
        StageError: BAD_DATA, naming file and key: a missing or unreadable file, a tensor missing, of another
            shape or dtype (a checkpoint of another model), NaN or infinity, a negative v, a v that is zero throughout
            (the optimiser never saw that parameter, and the first step would divide by eps).
    """
    ranks = ranks or Alone()
    constants = _read_optimizer(folder / OPTIMIZER)
    shapes = ranks.shapes(model)
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)} - shapes.keys()
    weights, exp_avg, exp_avg_sq = (
        _read_tensors(folder / file, shapes, aliases, ranks) for file in (WEIGHTS, EXP_AVG, EXP_AVG_SQ)
    )
    for name, v in exp_avg_sq.items():
        if v.min() < 0:
            raise _bad("second moments below zero", f"{folder / EXP_AVG_SQ}: {name}")
    largest = ranks.sum(np.array([v.max().item() for v in exp_avg_sq.values()]))
    for name, value in zip(exp_avg_sq, largest, strict=True):
        if value == 0:
            where = f"{folder / EXP_AVG_SQ}: {name}"
            raise _bad("second moments are zero throughout", where, "the warm-up must train this parameter")
    return AdamState(weights, exp_avg, exp_avg_sq, **constants)


def build_student(folder: Path) -> Any:
    """The folder's architecture in fp32 with weights yet unset: `Prober` puts the checkpoint's in."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config = read_config(folder)
    try:
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise _bad(f"not a causal language model: {error}", str(folder)) from error
    # Tying is part of the initialisation that was skipped.
    model.tie_weights()
    return model


def read_config(folder: Path) -> Any:
    """The folder's Hugging Face configuration; BAD_DATA where it has none that can be read."""
    from transformers import AutoConfig

    return from_pretrained(AutoConfig, folder, "not a Hugging Face model")


def read_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; BAD_DATA where it has none that can be read."""
    from transformers import AutoTokenizer

    return from_pretrained(AutoTokenizer, folder, "no tokenizer that can be read")


def from_pretrained(kind: Any, folder: Path, message: str, **arguments: Any) -> Any:
    """What a transformers class (`kind`) reads out of the folder; BAD_DATA with the message where it cannot."""
    try:
        return kind.from_pretrained(folder, **arguments)
    except Exception as error:  # of damaged files anything comes, from an OSError to an AttributeError
        raise _bad(f"{message}: {type(error).__name__}: {error}", str(folder)) from error


def _read_optimizer(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
        beta1, beta2 = (float(beta) for beta in raw["betas"])
        step, lr, eps = int(raw["step"]), float(raw["lr"]), float(raw["eps"])
        weight_decay = float(raw["weight_decay"])
    except OSError as error:
        raise _bad(f"cannot be read: {error}", str(path), "is this a warm-up checkpoint?") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise _bad(f"not an optimizer's constants: {error!r}", str(path)) from error
    if step < 1:
        raise _bad("the warm-up took no step", f"{path}: step")
    # NaN is in no range.
    for key, right, wanted in (
        ("lr", 0 < lr < math.inf, "above zero"),
        ("betas", 0 <= beta1 < 1 and 0 < beta2 < 1, "from 0, the second above it, to below 1"),
        ("eps", 0 < eps < math.inf, "above zero: a weight that no batch has reached has v = 0"),
        ("weight_decay", 0 <= weight_decay < math.inf, "zero or above"),
    ):
        if not right:
            raise _bad(f"{raw[key]} is not a finite number {wanted}", f"{path}: {key}")
    if weight_decay and not raw.get("adam_w_mode", True):
        raise _bad("Adam with L2 decay, not AdamW", f"{path}: adam_w_mode", "warm up with AdamW or weight_decay 0")
    return {"step": step, "lr": lr, "betas": (beta1, beta2), "eps": eps, "weight_decay": weight_decay}


def _read_tensors(path: Path, shapes: dict[str, torch.Size], aliases: set[str], ranks: Ranks) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            foreign = sorted(set(file.keys()) - shapes.keys() - aliases)
            if foreign:
                raise _bad("the model has no such parameter", f"{path}: {foreign[0]}", _ANOTHER)
            missing = sorted(shapes.keys() - set(file.keys()))
            if missing:
                raise _bad("missing", f"{path}: {missing[0]}", _ANOTHER)
            return {name: _read_tensor(file, name, shape, ranks, f"{path}: {name}") for name, shape in shapes.items()}
    except (OSError, SafetensorError) as error:
        raise _bad(f"cannot be read: {error}", str(path), "is this a warm-up checkpoint?") from error


def _read_tensor(file: Any, name: str, shape: torch.Size, ranks: Ranks, where: str) -> Tensor:
    stored = file.get_slice(name)
    if tuple(stored.get_shape()) != tuple(shape):
        raise _bad(f"shape {tuple(stored.get_shape())}, the model's is {tuple(shape)}", where, _ANOTHER)
    if ranks.count == 1:
        tensor: Tensor = file.get_tensor(name)
    else:
        first, last, padding = ranks.span(shape.numel())
        # Files are read by rows: those that the part lies in, and of these the part.
        width = shape[1:].numel()
        top = first // width
        rows: Tensor = stored[top : -(-last // width)]
        tensor = torch.nn.functional.pad(rows.reshape(-1)[first - top * width : last - top * width], (0, padding))
    if tensor.dtype != torch.float32:
        raise _bad(f"dtype {tensor.dtype}, not float32", where, "export fp32 master weights and moments")
    if not torch.isfinite(tensor).all():
        raise _bad("holds NaN or infinity", where)
    return tensor


def _bad(message: str, where: str, hint: str | None = None) -> StageError:
    return StageError(message, code=ExitCode.BAD_DATA, where=where, hint=hint)
