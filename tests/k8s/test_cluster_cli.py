"""`montessori -n`: what a user types, on a cluster in memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flow.pods import PodSettings
from k8s import access, names
from k8s.cli import main
from k8s.client import Client, NoAnswer
from k8s.lease import Lease
from stages.contract.store import FileStore, Store
from tests.k8s.driving import NAME, RECIPE, Driver, recipe, tools
from tests.k8s.fake import Dies, FakeCluster, refusal
from tests.support import REPOSITORY


@pytest.fixture
def store(file_store: Store) -> Store:
    return file_store


@pytest.fixture
def cluster(store: Store) -> FakeCluster:
    return FakeCluster(store)


@pytest.fixture
def driver(cluster: FakeCluster, store: Store) -> Driver:
    return Driver(cluster, tools(cluster, store))


@pytest.fixture
def cli(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Any:
    """Calls the program's own `main` in an empty folder; -n test is the cluster in memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def connect(namespace: str | None) -> Client:
        return Client(cluster, namespace or "test", patience_s=0.01, sleep=lambda seconds: None)

    monkeypatch.setattr(access, "connect", connect)
    Path("mine.yaml").write_text(yaml.safe_dump({**RECIPE, "name": NAME}))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["montessori", *arguments, "-n", "test"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def test_submit_creates_a_run_and_says_what_is_next(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    code, out, _ = cli("submit", "mine.yaml", "--set", "dpo.beta=0.3")
    assert code == 0 and out == f"{NAME}: submitted; next: montessori watch {NAME} -n test\n"
    spec = cluster.run(NAME)["spec"]["recipe"]
    assert spec["dpo"] == {"beta": 0.3} and "name" not in spec and "store" not in spec
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_submitting_again_changes_nothing_or_what_changed(cli: Any, cluster: FakeCluster) -> None:
    cli("submit", "mine.yaml")
    assert ": unchanged;" in cli("submit", "mine.yaml")[1]
    assert cluster.run(NAME)["metadata"]["generation"] == 1
    assert ": changed;" in cli("submit", "mine.yaml", "--set", "dpo.beta=0.3")[1]


def test_submitting_a_failed_run_again_carries_it_on(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    cli("submit", "mine.yaml", "--set", "run.retries=0")
    status = driver.to_the_end(lambda task, shard: Dies(70) if task.node == "lines" else None)
    assert status["phase"] == "Failed"
    assert ": carried on;" in cli("submit", "mine.yaml", "--set", "run.retries=0")[1]
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_files_and_models_of_this_machine_are_copied_with_the_digests_of_a_local_run(
    cli: Any, cluster: FakeCluster, store: Store, tmp_path: Path
) -> None:
    from flow.sources import model_digest
    from stages.models.settings import ModelSource
    from stages.models.source import resolve

    folder = tmp_path / "My model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "deep" / "notes.txt").write_text("below")
    Path("rows.jsonl").write_text(json.dumps({"instruction": "Name a river.", "response": "The Danube."}) + "\n")
    code, _, _ = cli(
        "submit",
        "mine.yaml",
        "--store",
        store.uri,
        "--set",
        f"teacher.model={folder}",
        "--set",
        "prepare.seeds.uri=rows.jsonl",
    )
    assert code == 0
    spec = cluster.run(NAME)["spec"]["recipe"]
    assert spec["teacher"]["model"].startswith("store:inputs/models/") and spec["teacher"]["model"].endswith("My-model")
    assert spec["prepare"]["seeds"]["uri"].startswith("store:inputs/") and spec["prepare"]["seeds"]["digest"]
    there, here = ModelSource(model=spec["teacher"]["model"]), ModelSource(model=str(folder))
    assert model_digest(there, store) == model_digest(here, store)
    found = resolve(there, tmp_path / "cache", store)
    assert (found / "deep" / "notes.txt").read_text() == "below"


def test_files_of_this_machine_without_a_known_store_are_refused(cli: Any, tmp_path: Path) -> None:
    Path("rows.jsonl").write_text("{}\n")
    code, _, err = cli("submit", "mine.yaml", "--set", "prepare.seeds.uri=rows.jsonl")
    assert code == 64 and "prepare.seeds" in err and "--store" in err


MISTAKES = [
    (("status", "nothing"), 64, "there is no run 'nothing'"),
    (("cancel", "nothing"), 64, "montessori submit"),
    (("submit", "nowhere.yaml"), 64, "nowhere.yaml"),
    (("submit", "mine.yaml", "--set", "dpo.betta=1"), 64, "beta"),
    (("submit", "mine.yaml", "--set", "teacher.model=builtin:gpt"), 64, "builtin:gpt"),
    (("logs", "prepare"), 64, "there is no run"),
]


@pytest.mark.parametrize(("arguments", "code", "word"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_clear_line(cli: Any, arguments: tuple[str, ...], code: int, word: str) -> None:
    found, _, err = cli(*arguments)
    assert found == code and word in err and len(err.strip().splitlines()) == 1


def test_a_cluster_that_refuses_or_does_not_answer_is_one_clear_line(cli: Any, cluster: FakeCluster) -> None:
    cluster.fault = lambda method, path: refusal(403, "Forbidden", "user cannot list tailoringruns")
    code, _, err = cli("status")
    assert code == 64 and "user cannot list tailoringruns" in err
    cluster.fault = lambda method, path: refusal(404, "NotFound", "page not found")
    assert "knows no TailoringRuns" in cli("status")[2]
    cluster.fault = lambda method, path: refusal(404, "NotFound", 'namespaces "shcool" not found')
    assert 'namespaces "shcool" not found' in cli("status")[2]
    cluster.fault = lambda method, path: NoAnswer("connection refused")
    code, _, err = cli("status")
    assert code == 69 and "does not answer" in err


def test_status_shows_the_nodes_and_what_is_in_the_way(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    cluster.add_run(NAME, recipe(shards=2, run={"retries": 0, "shards": {"influence": 2}}))
    driver.to_the_end(lambda task, shard: Dies(70) if task.node == "lines" and shard else None)
    code, out, _ = cli("status")
    assert code == 0 and f"{NAME}: Failed, 2/4 nodes done" in out
    assert any(line.split()[:3] == ["lines", "failed", "1/2"] for line in out.splitlines())
    assert out.splitlines()[-1].startswith("NodeFailed: lines, exit code 70")
    told = json.loads(cli("status", NAME, "-o", "json")[1])
    assert told["phase"] == "Failed" and told["run"] == NAME


def test_watch_ends_with_the_runs_exit_code(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    cluster.add_run(NAME, recipe())
    driver.to_the_end()
    code, out, _ = cli("watch")
    assert code == 0 and "again: done" in out and f"{NAME}: Succeeded" in out
    cluster.change_run(NAME, recipe=recipe(run={"retries": 0}), rerun=[{"id": "x", "node": "lines"}])
    driver.to_the_end(lambda task, shard: Dies(65) if task.node == "lines" else None)
    assert cli("watch")[0] == 65


def test_cancel_and_rerun_change_the_spec(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    cluster.add_run(NAME, recipe(shards=3))
    driver.turn()
    assert "stops within seconds" in cli("cancel")[1]
    assert cluster.run(NAME)["spec"]["cancel"] is True
    driver.turn()
    assert driver.turn()["phase"] == "Cancelled"
    assert "is not running" in cli("cancel", NAME)[1]
    code, out, _ = cli("rerun", "lines", "--shards", "0,2")
    assert code == 0 and "lines of toy is made again" in out
    (request,) = cluster.run(NAME)["spec"]["rerun"]
    assert (request["node"], request["shards"]) == ("lines", [0, 2]) and cluster.run(NAME)["spec"]["cancel"] is False
    assert "has no node 'nonsense'" in cli("rerun", "nonsense")[2]


def test_requests_that_were_carried_out_make_room(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    cluster.add_run(NAME, recipe())
    driver.to_the_end()
    for _ in range(3):
        cli("rerun", "lines")
        assert driver.to_the_end()["phase"] == "Succeeded"
    assert len(cluster.run(NAME)["spec"]["rerun"]) == 1


def test_logs_find_the_pod_of_a_shard_also_after_a_retry_of_some(
    cli: Any, cluster: FakeCluster, driver: Driver, store: Store
) -> None:
    cluster.add_run(NAME, recipe(shards=3))
    driver.turn()
    cluster.work()
    driver.turn()
    cluster.work(lambda task, shard: Dies(70) if shard == 2 else None)
    driver.turn()
    first, second = cluster.jobs("lines")
    for job in (first, second):
        for index in range(job["spec"]["completions"]):
            cluster.end_pod(job, index, Dies(70))
    for pod in cluster.all("pods"):
        labels, annotations = pod["metadata"]["labels"], pod["metadata"]["annotations"]
        pod["log"] = f"{labels[names.LABEL_ATTEMPT]}/{annotations['batch.kubernetes.io/job-completion-index']}\n"
    assert cli("logs", "lines", "--shard", "2")[1] == "2/0\n"
    assert cli("logs", "lines", "--shard", "1", "--attempt", "1")[1] == "1/1\n"
    assert "has no shard 1" in cli("logs", "lines", "--shard", "1")[2]


def test_each_pod_of_a_training_has_a_log_of_its_own(cli: Any, cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe())
    Driver(cluster, tools(cluster, store, pods={"tests.toy.whole": PodSettings(pods=2)})).turn()
    (job,) = cluster.jobs("word")
    for place in range(2):
        cluster.end_pod(job, place, Dies(70))
        cluster.all("pods")[-1]["log"] = f"pod {place}\n"
    assert cli("logs", "word")[1] == "pod 0\n"
    assert cli("logs", "word", "--pod", "1")[1] == "pod 1\n"
    store.put(f"runs/{NAME}/logs/it1.dpo-1/shard-00000-pod-1/000000.log", b"kept\n")
    cluster.run(NAME)["status"]["nodes"].append({"name": "it1.dpo", "state": "done", "attempts": 1})
    assert cli("logs", "it1.dpo", "--pod", "1")[1:] == ("kept\n", "")
    assert "has no pod 2 of shard 0" in cli("logs", "it1.dpo", "--pod", "2")[2]


def test_logs_come_from_the_store_when_the_pods_are_gone(
    cli: Any, cluster: FakeCluster, driver: Driver, store: Store
) -> None:
    cluster.add_run(NAME, recipe())
    driver.to_the_end()
    store.put(f"runs/{NAME}/logs/prepare-1/shard-00000/000000.log", b"what it said\n")
    status = cluster.run(NAME)["status"]
    status["nodes"].append({"name": "prepare", "state": "done", "attempts": 1})
    assert cli("logs", "prepare")[1] == "what it said\n"


def test_the_store_of_a_run_is_found_by_its_status(cli: Any, cluster: FakeCluster, driver: Driver) -> None:
    cluster.add_run(NAME, recipe())
    driver.turn()
    code, _, err = cli("export", NAME)
    assert (code == 64 and "no results yet" in err) or "not finished" in err


def test_doctor_looks_for_the_controller_and_its_store(cli: Any, cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe())
    code, out, _ = cli("doctor", "--store", store.uri)
    assert code == 1 and "none works in test" in out and "conditional put" in out
    code, out, _ = cli("doctor", "-o", "json")
    assert {each["name"] for each in json.loads(out)} == {"cluster", "runs", "controller", "store"}


def test_doctor_finds_the_controller_of_a_release_of_any_name(cli: Any, cluster: FakeCluster, store: Store) -> None:
    client = access.connect("test")
    told = {"MONTESSORI_CONTROLLER_STORE": store.uri, "MONTESSORI_CONTROLLER_LEASE": "tailoring-controller"}
    labels = {"app.kubernetes.io/part-of": "montessori"}
    metadata = {"name": "tailoring-controller", "namespace": "test", "labels": labels}
    client.create("configmaps", {"metadata": metadata, "data": told})
    assert Lease(client, "tailoring-controller", "tailoring-7f9c").step()
    code, out, _ = cli("doctor")
    assert code == 0 and "tailoring-7f9c works" in out


def test_plan_counts_with_the_versions_of_the_clusters_stages(
    cli: Any, cluster: FakeCluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONTESSORI_STAGE_VERSIONS", raising=False)
    store.put("controller.json", b'{"versions": {"pyarrow": "99.1.0"}}')
    code, out, _ = cli("plan", "mine.yaml", "--store", store.uri, "-o", "json")
    assert code == 0 and json.loads(out)["store"] == store.uri
    import os

    assert json.loads(os.environ["MONTESSORI_STAGE_VERSIONS"]) == {"pyarrow": "99.1.0"}
    monkeypatch.delenv("MONTESSORI_STAGE_VERSIONS")


def test_a_run_that_a_controller_looks_after_is_not_cancelled_behind_its_back(driver: Driver, store: Store) -> None:
    from flow.graph import Graph
    from flow.manage import cancel
    from flow.session import Session
    from stages.contract.errors import StageError

    driver.cluster.add_run(NAME, recipe())
    driver.turn()
    with pytest.raises(StageError, match="montessori cancel toy -n test"):
        cancel(Session(None, FileStore(Path(store.uri.removeprefix("file://"))), Graph(NAME, {}, {})))  # type: ignore[arg-type]


def test_every_reason_of_a_condition_is_in_the_documents() -> None:
    table = (REPOSITORY / "docs" / "cluster.md").read_text()
    of_events = {names.Reason.NODE_STARTED, names.Reason.NODE_DONE, names.Reason.RERUN}
    assert [reason for reason in names.Reason if reason not in of_events and f"| {reason} |" not in table] == []
