"""A copy of a model with decoder layers left out: a smaller student of the same family, to be healed by
training.

Done on the stored tensors by name, so it costs reading and writing the files: no model is built, no value
changes and the precision stays. It covers decoder-only models whose layers are stored as `model.layers.N.…`
(Llama, Mistral, Qwen, Gemma, SmolLM, OLMo, Phi-3 and others), not encoders or models of several towers.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.contract.errors import StageError, bad_settings
from stages.models.cache import made_once

if TYPE_CHECKING:
    import torch

LAYER = re.compile(r"model\.layers\.(\d+)\.")
INDEX = "model.safetensors.index.json"
# Entries of config.json that hold one value a layer
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")


def without_layers(folder: Path, drop: tuple[int, ...], cache: Path) -> Path:
    """A copy of the model in `folder` without the decoder layers `drop` (from 0), made once in `cache`.

    Raises:
        StageError: BAD_SETTINGS where a layer does not exist, none would be left, or the model's layers are
            not stored in the way that this module knows.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int):
        raise _unknown_kind(folder)
    beyond = [layer for layer in drop if layer >= layers]
    if beyond:
        raise bad_settings(
            f"there is no layer {beyond[0]} in {folder}",
            where="drop_layers",
            hint=f"the model has {layers} layers, 0 to {layers - 1}",
        )
    kept = [layer for layer in range(layers) if layer not in drop]
    if not kept:
        raise bad_settings(f"all {layers} layers of {folder} are dropped", where="drop_layers")

    target = cache / "pruned" / f"{folder.name}-{len(kept)}-layers-{_identity(folder, drop)}"
    return made_once(target, lambda temporary: _write(folder, config, kept, temporary))


def _write(folder: Path, config: dict[str, Any], kept: list[int], target: Path) -> None:
    _write_weights(folder, config["num_hidden_layers"], kept, target)
    for file in folder.iterdir():
        if file.is_file() and file.suffix != ".safetensors" and file.name not in ("config.json", INDEX):
            shutil.copyfile(file, target / file.name)
    per_layer = {key: [config[key][layer] for layer in kept] for key in PER_LAYER if config.get(key)}
    pruned = {**config, "num_hidden_layers": len(kept), **per_layer}
    (target / "config.json").write_text(json.dumps(pruned, indent=2))


def _write_weights(folder: Path, layers: int, kept: list[int], target: Path) -> None:
    """File by file, so that memory holds one file of a large model at a time."""
    from safetensors.torch import load_file, save_file

    place = {layer: position for position, layer in enumerate(kept)}
    seen: set[int] = set()
    weight_map: dict[str, str] = {}
    size = 0
    for file in sorted(folder.glob("*.safetensors")):
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in load_file(file).items():
            found = LAYER.match(name)
            if found is None:
                tensors[name] = tensor
                continue
            layer = int(found[1])
            seen.add(layer)
            if layer in place:
                tensors[f"model.layers.{place[layer]}.{name[found.end() :]}"] = tensor
        if tensors:
            # transformers refuses a file that does not say which framework wrote it
            save_file(tensors, target / file.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if seen != set(range(layers)):
        raise _unknown_kind(folder)
    if (folder / INDEX).is_file():
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (target / INDEX).write_text(json.dumps(index, indent=2))


def _unknown_kind(folder: Path) -> StageError:
    return bad_settings(
        f"layers of {folder} cannot be dropped: its weights are not named model.layers.N",
        where="drop_layers",
        hint="use the whole model",
    )


def _identity(folder: Path, drop: tuple[int, ...]) -> str:
    """Tells copies apart: a model that was replaced in its folder since is another one."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps([str(folder), stats, drop]).encode()).hexdigest()[:12]
