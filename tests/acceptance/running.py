"""A recipe through the command line to its end, and what it left in its store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from stages.contract.artifact import Artifact
from stages.contract.store import FileStore

PROGRAM = Path(sys.executable).with_name("montessori")


def run_to_end(recipe: Path, folder: Path, timeout: float) -> dict[str, Artifact]:
    """By node what `montessori run` made; its store is `store` and its output is in `runs`, both in the folder."""
    done = subprocess.run(
        [PROGRAM, "run", recipe, "--store", folder / "store", "--to", folder / "runs"],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    nodes = json.loads((folder / "store" / "runs" / recipe.stem / "resolved.json").read_text())["nodes"]
    store = FileStore(folder / "store")
    return {name: Artifact(store, node["key"]) for name, node in nodes.items()}
