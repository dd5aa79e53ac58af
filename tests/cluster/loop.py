"""The loop with real stages in a cluster, pods of its trainings lost on the way, and after it on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

from flow.runstate import read_resolved
from stages.contract.artifact import Artifact
from stages.contract.store import FileStore, Store
from tests.cluster import tiny
from tests.cluster.faults import evict
from tests.cluster.machine import LOOP_S, REQUEST_S, await_, kubectl
from tests.cluster.release import Release
from tests.support import REPOSITORY

NAME = "loop"
TRAININGS = ("warmup", "dpo", "sft")
PODS = {
    "default": {"cpu": "100m", "memory": "3Gi"},
    **{stage: {"cpu": "100m", "memory": "3Gi", "pods": tiny.RANKS} for stage in TRAININGS},
}


class Loop:
    """Begun in the cluster at once, and on this machine when it is over there, both beside whatever else goes on.

    Not side by side: where the cluster's node is this machine, neither would end beside the other.
    """

    def __init__(self, release: Release, folder: Path) -> None:
        self.release = release
        self.folder = folder
        self.killed: dict[str, str] = {}
        values = tiny.recipe(folder)
        self.recipe = tiny.write(folder, NAME, values, run=values["run"] | {"pods": PODS})
        self.submitted = release.cli("submit", str(self.recipe), "-n", release.namespace)
        self._here: Future[dict[str, str]] = Future()
        self._process: subprocess.Popen[str] | None = None
        for work in (self._disturb, self._repeat):
            threading.Thread(target=work, daemon=True).start()

    def local(self) -> dict[str, str]:
        """The digests of what this machine made."""
        self.cluster()  # which says why it did not end
        return self._here.result(LOOP_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # it stops its stages
            self._process.wait(REQUEST_S)

    def _repeat(self) -> None:
        try:
            await_(lambda: self.release.phase(NAME) == "Succeeded", LOOP_S, "the end of the cluster's loop")
            self._here.set_result(self._run())
        except BaseException as error:
            self._here.set_exception(error)

    def _run(self) -> dict[str, str]:
        # As many ranks in one process each as there are pods.
        ranks = [text for stage in TRAININGS for text in ("--set", f"{stage}.ranks={tiny.RANKS}")]
        own = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}  # a pod has none set
        store, command = self.folder / "store", [sys.executable, "-m", "k8s.cli", "run", str(self.recipe)]
        self._process = subprocess.Popen(
            [*command, *ranks, "--store", str(store), "--to", str(self.folder / "runs")],
            cwd=REPOSITORY,
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        out, _ = self._process.communicate()
        assert self._process.returncode == 0, out[-3000:]
        return _digests(FileStore(store))

    def cluster(self) -> dict[str, str]:
        self.release.ended(NAME, within=LOOP_S)
        return _digests(self.release.store)

    def _disturb(self) -> None:
        """Once a checkpoint is there: kills the second pod of DPO, and has the first one of SFT evicted."""
        for node, index in (("it1.dpo", 1), ("tailored.sft", 0)):
            await_(lambda node=node: self._checkpoint(node), LOOP_S, f"a checkpoint of {node}", every=0.1)
            pod = self.release.running_pod(NAME, node, index)["metadata"]["name"]
            if index:
                kubectl("delete", "pod", "-n", self.release.namespace, pod, "--grace-period=0", "--force")
            else:
                evict(self.release.namespace, pod)
            self.killed[node] = pod

    def _checkpoint(self, node: str) -> bool:
        keys = self.release.store.list(f"{self.release.output(NAME, node)}/checkpoints/")
        return any(key.endswith("complete.json") for key, _ in keys)


def _digests(store: Store) -> dict[str, str]:
    """What every node made, by its name."""
    nodes = read_resolved(store, NAME)["nodes"]
    return {name: Artifact(store, node["key"]).manifest.digest for name, node in nodes.items()}
