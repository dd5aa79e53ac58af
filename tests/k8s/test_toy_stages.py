"""The stages that only the cluster tests run start in their image, which has the stages' packages and no test's."""

from __future__ import annotations

import subprocess
import sys

from tests.support import REPOSITORY

SCRIPT = """
import sys
from importlib import import_module
sys.modules.update({"pytest": None, "hypothesis": None})
import tests.cluster.toy
from stages.contract.catalog import spec
for stage in sys.argv[1:]:
    import_module(spec(stage).entry)
"""


def test_the_test_image_needs_no_test_package() -> None:
    stages = sorted(
        ".".join(found.parent.relative_to(REPOSITORY).parts) for found in REPOSITORY.glob("tests/toy/*/stage.py")
    )
    assert "tests.toy.ready" in stages
    done = subprocess.run([sys.executable, "-c", SCRIPT, *stages], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
