"""Which of several pods that work on one shard together this process is.

The environment says so and not the task: pods change what a training costs, never what comes of it, and a pod that is
replaced gets the same task again. JOB_COMPLETION_INDEX is then the pod's place and no longer a shard's index.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from stages.contract.catalog import spec
from stages.contract.errors import bad_settings
from stages.contract.task import Task

PODS_VARIABLE = "MONTESSORI_PODS"
RENDEZVOUS_VARIABLE = "MONTESSORI_RENDEZVOUS"


@dataclass(frozen=True)
class Pods:
    """`count` pods, of which this is number `place`; the one at place 0 listens at `host:port` for the others."""

    count: int = 1
    place: int = 0
    host: str = ""
    port: int = 0

    @property
    def first(self) -> bool:
        """Whether this pod is the one that reports and publishes."""
        return self.place == 0


ALONE = Pods()


def read_pods(task: Task, index: int) -> Pods:
    """The pods that the environment tells of; `ALONE` where it tells of none.

    Raises:
        StageError: BAD_SETTINGS for variables that make no sense, or a stage whose pods do not work together.
    """
    text = os.environ.get(PODS_VARIABLE, "1")
    if not text.isdecimal() or int(text) < 1:
        raise bad_settings(f"{PODS_VARIABLE} is not a number of pods: {text!r}")
    count = int(text)
    if count == 1:
        return ALONE
    if spec(task.stage).launch != "torchrun":
        raise bad_settings(
            f"pods of {task.stage} do not work together",
            where=f"{PODS_VARIABLE}={count}",
            hint="give it shards instead",
        )
    if len(task.shards.indices) > 1:
        raise bad_settings(f"{count} pods cannot share {len(task.shards.indices)} shards", where=task.key)
    if index >= count:
        raise bad_settings(f"there is no pod {index} of {count}", where=task.key)
    address = os.environ.get(RENDEZVOUS_VARIABLE, "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise bad_settings(f"{RENDEZVOUS_VARIABLE} is not HOST:PORT: {address!r}")
    return Pods(count, index, host.strip("[]"), int(port))
