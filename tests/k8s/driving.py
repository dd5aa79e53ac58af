"""Driving the controller through runs of toy stages on the cluster in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flow.graph import Edge, Graph, Node
from flow.pods import PodSettings
from flow.recipe import RecipeBase
from k8s import names
from k8s.client import Client, Object
from k8s.controller import Controller
from k8s.metrics import Metrics
from k8s.observe import JobView, job_view
from k8s.one import OneRun
from k8s.reconcile import Tools
from k8s.render import RenderSettings
from stages.contract.catalog import spec
from stages.contract.manifest import read_manifest
from stages.contract.store import Store
from tests.k8s.fake import Behaviour, FakeCluster, stage_runs

NAME = "toy"
RECIPE = {"teacher": {"model": "builtin:smollm2"}, "student": {"model": "builtin:smollm2"}}
ROUNDS = 60


def toy_graph(recipe: RecipeBase, **settings: Any) -> Graph:
    """numbers → lines → again, with as many shards of each as `run.shards.influence`; and a word beside them."""
    shards = recipe.run.shards.get("influence", 1)

    def lines(**more: Any) -> Any:
        return spec("tests.toy.lines").settings.model_validate({**settings, **more})

    nodes = {
        "numbers": Node("numbers", "tests.toy.numbers", spec("tests.toy.numbers").settings(), {}, 1, "run"),
        "lines": Node("lines", "tests.toy.lines", lines(), {"rows": Edge("numbers")}, shards, "run"),
        "again": Node("again", "tests.toy.lines", lines(times=3), {"rows": Edge("lines")}, shards, "run"),
        "word": Node("word", "tests.toy.whole", spec("tests.toy.whole").settings(), {}, 1, "run"),
    }
    return Graph(recipe.name, nodes, {"dataset": "again"})


def recipe(shards: int = 1, **more: Any) -> dict[str, Any]:
    return {**RECIPE, "run": {"shards": {"influence": shards}}, **more}


def tools(cluster: FakeCluster, store: Store, namespace: str = "test", **settings: Any) -> Tools:
    pods: Mapping[str, PodSettings] = settings.pop("pods", {})
    client = Client(cluster, namespace, patience_s=0.05, sleep=lambda seconds: None)
    render = RenderSettings(store=store.uri, image="stages:1")
    return Tools(client, store, render, pods, Metrics(), lambda found: toy_graph(found, **settings))


def make_controller(used: Tools, **more: Any) -> Controller:
    assert isinstance(used.told, Metrics)
    return Controller(used, used.told, interval_s=more.pop("interval_s", 0.01), workers=4, **more)


def sweep(*controllers: Controller) -> None:
    """Lets each controller look at everything once."""
    for each in controllers:
        each.wake_all()
        each.step()
    for each in controllers:
        each.settle()


class Driver:
    """One run, turn by turn: no threads, so that whatever is thrown comes out here."""

    def __init__(self, cluster: FakeCluster, used: Tools, name: str = NAME) -> None:
        self.cluster = cluster
        self.tools = used
        self.name = name
        self.seconds = 0.0
        self.restart()

    def restart(self) -> None:
        """The controller was killed; another one starts."""
        assert isinstance(self.tools.told, Metrics)
        self.one = OneRun(self.tools, self.tools.told)

    def views(self) -> list[JobView]:
        raw = self.tools.client.list("jobs", labels=f"{names.LABEL_RUN}={self.name}")
        return [view for each in raw if (view := job_view(each)) is not None]

    def turn(self, **obstacles: Any) -> Object:
        """One turn, and more where there is more to do at once; returns the run's status."""
        again = True
        while again:
            found = self.tools.client.get(names.PLURAL, self.name)
            assert found is not None
            self.seconds += 10
            _, again = self.one.turn(found, self.views(), obstacles, self.seconds)
        status = self.cluster.run(self.name).get("status", {})
        assert isinstance(status, dict)
        return status

    def to_the_end(self, behave: Behaviour = stage_runs) -> Object:
        """Turns and pods' work by turns, until the run is over or nothing happens any more."""
        for _ in range(ROUNDS):
            status = self.turn()
            if status["phase"] in ("Succeeded", "Failed", "Cancelled"):
                return status
            self.cluster.work(behave)
        raise AssertionError(f"the run does not end: {status}")


def node(status: Object, name: str) -> Object:
    return next(each for each in status["nodes"] if each["name"] == name)


def condition(status: Object, kind: str) -> Object:
    return next(each for each in status["conditions"] if each["type"] == kind)


def digests(store: Store, name: str = NAME) -> dict[str, str]:
    """The content digest of each complete node of a run."""
    found = store.get_json(f"runs/{name}/resolved.json")
    return {node: str(each["digest"]) for node, each in found["nodes"].items()} if found else {}


def manifests(store: Store) -> list[str]:
    """Every artifact that is complete."""
    keys = [key for key, _ in store.list("artifacts/") if key.count("/") == 3 and key.endswith("/manifest.json")]
    assert all(read_manifest(store, key.removesuffix("/manifest.json")) for key in keys)
    return keys
