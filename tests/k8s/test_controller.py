"""A whole run under the controller: what it starts, in which order, what it says, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow.decide import Limits
from flow.local import LocalRun
from k8s import names
from k8s.client import Client
from stages.contract.artifact import Artifact
from stages.contract.store import FileStore, Store
from tests.k8s.driving import (
    NAME,
    Driver,
    condition,
    digests,
    make_controller,
    manifests,
    node,
    recipe,
    sweep,
    tools,
    toy_graph,
)
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
    cluster.add_run(NAME, recipe(shards=3))
    return Driver(cluster, tools(cluster, store))


def test_a_run_gives_what_the_local_run_gives(
    driver: Driver, cluster: FakeCluster, store: Store, tmp_path: Path
) -> None:
    status = driver.to_the_end()
    assert status["phase"] == "Succeeded" and status["progress"] == "4/4"
    assert condition(status, "Complete")["status"] == "True"
    local = FileStore(tmp_path / "local")
    graph = toy_graph(_parsed(cluster, store))
    decision = LocalRun(graph, local, Limits(0), 2, environment={"PYTHONPATH": str(REPOSITORY)}).run()
    assert decision.exit_code == 0
    assert digests(store) == digests(local) and len(digests(store)) == 4


def _parsed(cluster: FakeCluster, store: Store):  # type: ignore[no-untyped-def]
    from k8s.run import parse_run

    return parse_run(cluster.run(NAME), store.uri).recipe


def test_a_node_is_one_job_that_starts_when_its_inputs_are_there(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    assert {job["metadata"]["labels"][names.LABEL_NODE] for job in cluster.jobs()} == {"numbers", "word"}
    cluster.work()
    status = driver.turn()
    assert node(status, "numbers")["state"] == "done" and node(status, "lines")["state"] == "running"
    (job,) = cluster.jobs("lines")
    assert job["spec"]["completions"] == 3
    assert job["metadata"]["ownerReferences"][0]["uid"] == cluster.run(NAME)["metadata"]["uid"]


def test_a_second_run_of_the_same_recipe_starts_nothing(driver: Driver, cluster: FakeCluster, store: Store) -> None:
    driver.to_the_end()
    before = len(cluster.jobs())
    cluster.add_run("second", recipe(shards=3))
    second = Driver(cluster, driver.tools, "second")
    status = second.turn()
    assert status["phase"] == "Succeeded" and len(cluster.jobs()) == before
    assert not [each for each in cluster.all("events") if each["involvedObject"]["name"] == "second"][1:]


def test_failed_shards_alone_run_again_in_a_job_of_their_own(
    driver: Driver, cluster: FakeCluster, store: Store
) -> None:
    broken = {1}

    def killed(task, shard):  # type: ignore[no-untyped-def]
        return Dies(137) if task.node == "lines" and shard in broken and task.attempt == 1 else None

    status = driver.to_the_end(killed)
    assert status["phase"] == "Succeeded"
    first, second = cluster.jobs("lines")
    assert (first["spec"]["completions"], second["spec"]["completions"]) == (3, 1)
    task = store.get_json(f"runs/{NAME}/tasks/lines-2.json")
    assert task is not None and task["shards"] == {"count": 3, "indices": [1]}
    assert node(status, "lines")["attempts"] == 2


@pytest.mark.parametrize("code", [70, 69, 75])
def test_what_may_pass_is_tried_again(driver: Driver, cluster: FakeCluster, code: int) -> None:
    def ends(task, shard):  # type: ignore[no-untyped-def]
        return Dies(code) if task.node == "again" and task.attempt < 3 else None

    assert driver.to_the_end(ends)["phase"] == "Succeeded"
    assert len(cluster.jobs("again")) == 3


def test_a_bug_is_tried_as_often_as_the_recipe_says_and_then_fails_the_run(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe(run={"retries": 1}))
    driver = Driver(cluster, tools(cluster, store, fault="bug"))
    status = driver.to_the_end()
    assert status["phase"] == "Failed" and len(cluster.jobs("lines")) == 2
    assert "no such column" in node(status, "lines")["message"] and "exit code 70" in node(status, "lines")["message"]
    assert node(status, "again")["state"] == "blocked" and node(status, "word")["state"] == "done"
    assert condition(status, "Progressing")["reason"] == "NodeFailed"


def test_bad_settings_fail_the_run_at_once_and_stop_what_else_goes_on(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    cluster.work(lambda task, shard: None)
    driver.turn()
    (job,) = cluster.jobs("lines")
    cluster.end_pod(job, 0, Dies(64))
    cluster.set_job(job, conditions=[{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}])
    status = driver.turn()
    assert status["phase"] == "Failed" and "exit code 64" in node(status, "lines")["message"]
    assert not [each for each in driver.views() if each.live]


def test_a_gate_stops_the_run_and_says_its_figure(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe())
    status = Driver(cluster, tools(cluster, store, fault="gate")).to_the_end()
    assert status["phase"] == "Failed" and len(cluster.jobs("lines")) == 1
    assert condition(status, "Complete")["reason"] == "GateNotMet"
    assert "yield 0.1 is below 0.5" in condition(status, "Complete")["message"]


def test_bad_data_fails_its_shard_alone(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe(shards=3))
    status = Driver(cluster, tools(cluster, store, fault="data", fault_at=1)).to_the_end()
    assert status["phase"] == "Failed" and len(cluster.jobs("lines")) == 1
    assert "row 3 has no text" in node(status, "lines")["message"]


@pytest.mark.parametrize("end", [Dies(76), Dies(137, "OOMKilled")])
def test_memory_that_ran_out_halves_what_is_computed_at_once(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, cluster: FakeCluster, store: Store, end: Dies
) -> None:
    monkeypatch.setattr("flow.resolve._AT_ONCE", {"chunk_rows": 1})

    def out_of_memory(task, shard):  # type: ignore[no-untyped-def]
        return end if task.node == "lines" and task.attempt < 3 else None

    assert driver.to_the_end(out_of_memory)["phase"] == "Succeeded"
    sizes = [store.get_json(f"runs/{NAME}/tasks/lines-{number}.json")["settings"]["chunk_rows"] for number in (1, 2, 3)]  # type: ignore[index]
    assert sizes == [4, 2, 1]


def test_pods_that_are_taken_away_cost_no_retry(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe(shards=1, run={"retries": 0}))
    driver = Driver(cluster, tools(cluster, store))
    taken = iter(range(7))

    def preempted(task, shard):  # type: ignore[no-untyped-def]
        lost = task.node == "lines" and next(taken, None) is not None
        return Dies(137, disrupted=True) if lost else None

    assert driver.to_the_end(preempted)["phase"] == "Succeeded"
    assert len(cluster.jobs("lines")) == 1  # the Job itself starts another pod: nothing is counted


def test_a_training_over_several_pods_that_loses_one_goes_on_in_a_new_job(cluster: FakeCluster, store: Store) -> None:
    from flow.pods import PodSettings

    cluster.add_run(NAME, recipe(run={"retries": 0}))
    driver = Driver(cluster, tools(cluster, store, pods={"tests.toy.whole": PodSettings(pods=2)}))

    def loses_one(task, shard):  # type: ignore[no-untyped-def]
        return Dies(137, disrupted=True) if task.node == "word" and task.attempt == 1 else None

    assert driver.to_the_end(loses_one)["phase"] == "Succeeded"
    first, second = cluster.jobs("word")
    assert second["spec"]["completions"] == 2
    assert {each["metadata"]["name"] for each in cluster.all("services")} == {
        first["metadata"]["name"],
        second["metadata"]["name"],
    }


def test_a_deleted_job_is_created_again_for_the_same_attempt(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    (job,) = cluster.jobs("numbers")
    cluster.remove("test", "jobs", job["metadata"]["name"])
    driver.turn()
    (again,) = cluster.jobs("numbers")
    assert again["metadata"]["name"] == job["metadata"]["name"] and again["metadata"]["uid"] != job["metadata"]["uid"]
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_a_finished_job_that_was_removed_unseen_is_known_by_its_outcomes(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    cluster.work()
    driver.turn()
    cluster.work(lambda task, shard: Dies(70) if shard == 2 else None)
    for job in cluster.jobs():
        cluster.remove("test", "jobs", job["metadata"]["name"])
    driver.restart()
    status = driver.turn()
    (job,) = cluster.jobs("lines")
    assert job["spec"]["completions"] == 1 and node(status, "lines")["shards"] == "2/3"
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_a_job_in_a_queue_is_suspended_and_says_why(cluster: FakeCluster, store: Store) -> None:
    from flow.pods import PodSettings

    cluster.add_run(NAME, recipe())
    driver = Driver(cluster, tools(cluster, store, pods={"default": PodSettings(queue="team")}))
    driver.turn()
    why = {"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "no quota for nvidia.com/gpu"}
    for job in cluster.jobs():
        cluster.set_job(job, conditions=[why])
    status = driver.turn()
    assert status["phase"] == "Suspended" and node(status, "numbers")["state"] == "suspended"
    assert "no quota" in condition(status, "Progressing")["message"]
    assert cluster.work() == 0
    for job in cluster.jobs():
        job["spec"]["suspend"] = False
        cluster.set_job(job, conditions=[])
    assert driver.turn()["phase"] == "Running"


PENDING = {
    "ImageNotPulled": {
        "containerStatuses": [
            {
                "name": "stage",
                "image": "stages:1",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "stages:1"'}},
            }
        ]
    },
    "ContainerConfigError": {
        "containerStatuses": [
            {
                "name": "stage",
                "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}},
            }
        ]
    },
    "Unschedulable": {
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
        ]
    },
}


@pytest.mark.parametrize("reason", PENDING)
def test_pods_that_do_not_start_are_a_condition_in_the_clusters_own_words(
    cluster: FakeCluster, store: Store, reason: str
) -> None:
    cluster.add_run(NAME, recipe())
    controller = make_controller(tools(cluster, store))
    sweep(controller)
    cluster.pend_pod(cluster.jobs("numbers")[0], PENDING[reason])
    sweep(controller)
    status = cluster.run(NAME)["status"]
    found = condition(status, "Progressing")
    assert (found["status"], found["reason"]) == ("False", reason)
    assert found["message"] in f"numbers: {node(status, 'numbers')['message'].partition(': ')[2]}"
    warnings = [each for each in cluster.all("events") if each["type"] == "Warning"]
    assert [each["reason"] for each in warnings] == [reason]


def test_a_job_that_the_server_refuses_is_a_condition_and_is_asked_for_again(
    driver: Driver, cluster: FakeCluster
) -> None:
    quota = refusal(403, "Forbidden", "exceeded quota: team-quota")
    cluster.fault = lambda method, path: quota if (method, path[-4:]) == ("POST", "jobs") else None
    status = driver.turn()
    assert condition(status, "Progressing")["reason"] == "JobRefused"
    assert "exceeded quota" in condition(status, "Progressing")["message"]
    cluster.fault = lambda method, path: None
    assert driver.to_the_end()["phase"] == "Succeeded"
    assert node(cluster.run(NAME)["status"], "numbers")["attempts"] == 1


def test_another_job_of_the_same_name_is_not_adopted(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    (job,) = cluster.jobs("numbers")
    job["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] = "another"
    job["metadata"]["labels"].pop(names.LABEL_RUN)
    assert "which is not this run's" in condition(driver.turn(), "Progressing")["message"]


def test_cancelling_stops_the_jobs_and_what_is_published_stays(
    driver: Driver, cluster: FakeCluster, store: Store
) -> None:
    driver.turn()
    cluster.work()
    driver.turn()
    cluster.change_run(NAME, cancel=True)
    driver.turn()
    status = driver.turn()
    assert status["phase"] == "Cancelled" and not [each for each in driver.views() if each.live]
    assert node(status, "numbers")["state"] == "done" and node(status, "lines")["state"] == "stopped"
    cluster.change_run(NAME, cancel=False)
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_a_run_that_failed_goes_on_when_its_recipe_is_mended(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe(shards=2))
    failed = Driver(cluster, tools(cluster, store, fault="data", fault_at=1)).to_the_end()
    assert failed["phase"] == "Failed"
    cluster.change_run(NAME, recipe=recipe(shards=2, about="mended"))
    assert Driver(cluster, tools(cluster, store)).to_the_end()["phase"] == "Succeeded"


def test_a_failed_run_is_carried_on_by_a_request_with_fresh_retries(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe(run={"retries": 0}))
    driver = Driver(cluster, tools(cluster, store))
    status = driver.to_the_end(lambda task, shard: Dies(70) if task.node == "lines" else None)
    assert status["phase"] == "Failed"
    cluster.change_run(NAME, rerun=[{"id": "once-more"}])
    status = driver.to_the_end()
    assert status["phase"] == "Succeeded" and status["rerun"] == ["once-more"]


def test_making_one_shard_again_runs_that_one_alone(driver: Driver, cluster: FakeCluster, store: Store) -> None:
    driver.to_the_end()
    before = digests(store)
    cluster.change_run(NAME, rerun=[{"id": "a", "node": "lines", "shards": [1]}])
    ran: list[tuple[str, int]] = []
    status = driver.to_the_end(lambda task, shard: ran.append((task.node, shard)))
    assert status["phase"] == "Succeeded" and ran == [("lines", 1)]
    assert digests(store) == before
    driver.restart()
    cluster.change_run(NAME, recipe=recipe(shards=3, about="a request is done once"))
    assert driver.to_the_end(lambda task, shard: ran.append((task.node, shard)))["phase"] == "Succeeded"
    assert ran == [("lines", 1)]


def test_making_a_node_and_all_below_it_again(driver: Driver, cluster: FakeCluster, store: Store) -> None:
    driver.to_the_end()
    cluster.change_run(NAME, rerun=[{"id": "b", "node": "lines", "down": True}])
    ran: list[str] = []
    driver.to_the_end(lambda task, shard: ran.append(task.node))
    assert sorted(set(ran)) == ["again", "lines"]


def test_a_request_stops_what_works_on_the_node_first(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    cluster.work()
    driver.turn()
    (job,) = cluster.jobs("lines")
    cluster.change_run(NAME, rerun=[{"id": "c", "node": "lines"}])
    driver.turn()
    assert not cluster.jobs("lines")
    driver.turn()
    (again,) = cluster.jobs("lines")
    assert again["metadata"]["uid"] != job["metadata"]["uid"]
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_a_request_is_not_lost_where_all_is_complete_and_pods_still_end(
    driver: Driver, cluster: FakeCluster, store: Store
) -> None:
    for _ in ("numbers", "lines", "again"):
        driver.turn()
        cluster.compute()  # and their Jobs go on
        assert driver.one.peek()
    assert driver.turn()["phase"] == "Succeeded"
    before = digests(store)
    assert [job for job in cluster.jobs("again") if not job.get("status")]
    cluster.change_run(NAME, rerun=[{"id": "e", "node": "lines", "down": True}])
    status = driver.turn()
    assert status["phase"] == "Running" and not status["rerun"]
    ran: list[str] = []
    status = driver.to_the_end(lambda task, shard: ran.append(task.node))
    assert status["rerun"] == ["e"] and {"again", "lines"} <= set(ran)
    assert digests(store) == before


def test_a_request_for_a_node_that_is_not_there_is_told_and_hurts_nothing(driver: Driver, cluster: FakeCluster) -> None:
    cluster.change_run(NAME, rerun=[{"id": "d", "node": "nonsense"}])
    status = driver.to_the_end()
    assert status["phase"] == "Succeeded" and status["rerun"] == ["d"]
    assert any("has no node 'nonsense'" in each["message"] for each in cluster.all("events"))


def test_a_changed_recipe_makes_again_what_it_changes_and_stops_what_is_outdated(
    cluster: FakeCluster, store: Store
) -> None:
    cluster.add_run(NAME, recipe())
    driver = Driver(cluster, tools(cluster, store))
    driver.turn()
    cluster.work()
    driver.turn()
    (outdated,) = cluster.jobs("lines")
    cluster.change_run(NAME, recipe=recipe(about="times 5"))
    changed = Driver(cluster, tools(cluster, store, times=5))
    changed.turn()
    (job,) = cluster.jobs("lines")
    assert job["metadata"]["uid"] != outdated["metadata"]["uid"]
    assert changed.to_the_end()["phase"] == "Succeeded"
    key = store.get_json(f"runs/{NAME}/resolved.json")["nodes"]["lines"]["key"]  # type: ignore[index]
    assert Artifact(store, key).table().to_pylist()[2]["product"] == 10


def test_a_job_that_goes_on_while_the_spec_changes_is_kept(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    cluster.work()
    driver.turn()
    (job,) = cluster.jobs("lines")
    cluster.change_run(NAME, recipe=recipe(shards=3, about="reworded"))
    driver.turn()
    assert [each["metadata"]["uid"] for each in cluster.jobs("lines")] == [job["metadata"]["uid"]]


def test_a_bad_recipe_is_a_condition_and_other_runs_go_on(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run("bad", {**recipe(), "dpo": {"betta": 1}})
    cluster.add_run(NAME, recipe())
    controller = make_controller(tools(cluster, store))
    for _ in range(12):
        sweep(controller)
        cluster.work()
    bad = cluster.run("bad")["status"]
    assert bad["phase"] == "Failed" and condition(bad, "Valid")["status"] == "False"
    assert "did you mean 'beta'" in condition(bad, "Valid")["message"]
    assert cluster.run(NAME)["status"]["phase"] == "Succeeded"


def test_a_recipe_made_invalid_stops_the_jobs_and_can_be_mended(driver: Driver, cluster: FakeCluster) -> None:
    driver.turn()
    cluster.change_run(NAME, recipe={**recipe(shards=3), "dpo": {"betta": 1}})
    stopped = driver.turn()
    assert stopped["phase"] == "Failed" and not cluster.jobs()
    assert condition(stopped, "Progressing")["reason"] == condition(stopped, "Complete")["reason"] == "Invalid"
    assert stopped["node"] == "" and "running" not in {each["state"] for each in stopped["nodes"]}
    cluster.change_run(NAME, recipe=recipe(shards=3))
    assert driver.to_the_end()["phase"] == "Succeeded"


def test_a_run_whose_recipe_is_invalid_can_be_cancelled(driver: Driver, cluster: FakeCluster) -> None:
    cluster.change_run(NAME, recipe={"nonsense": 1}, cancel=True)
    assert driver.turn()["phase"] == "Cancelled"


def test_no_room_for_more_pods_is_no_obstacle_while_some_work(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe())
    controller = make_controller(tools(cluster, store))
    sweep(controller)
    (job,) = cluster.jobs("numbers")
    cluster.pend_pod(job, PENDING["Unschedulable"])
    cluster.set_job(job, active=2, ready=1)
    sweep(controller)
    assert condition(cluster.run(NAME)["status"], "Progressing")["status"] == "True"


def test_a_run_that_is_deleted_takes_its_jobs_along_and_is_forgotten(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run(NAME, recipe())
    controller = make_controller(tools(cluster, store))
    sweep(controller)
    assert cluster.jobs()
    cluster.remove("test", names.PLURAL, NAME)
    sweep(controller)
    assert not cluster.jobs() and not controller._slots


def test_another_namespaces_runs_are_never_asked_for(cluster: FakeCluster, store: Store) -> None:
    cluster.add_run("theirs", recipe(), namespace="other")
    cluster.add_run(NAME, recipe())
    cluster.seen.clear()
    controller = make_controller(tools(cluster, store))
    for _ in range(3):
        sweep(controller)
        cluster.work()
    assert cluster.seen and all("/namespaces/test/" in path for _, path in cluster.seen)
    assert "status" not in cluster.objects["other", names.PLURAL]["theirs"]


def test_a_run_that_is_over_costs_nothing(driver: Driver, cluster: FakeCluster, store: Store) -> None:
    driver.to_the_end()
    controller = make_controller(driver.tools)
    cluster.seen.clear()
    sweep(controller)
    assert [method for method, _ in cluster.seen] == ["GET", "GET"]  # the Jobs and the runs, for all runs at once


def test_the_status_says_what_goes_on_and_is_written_only_when_it_changes(driver: Driver, cluster: FakeCluster) -> None:
    status = driver.turn()
    assert (status["phase"], status["node"], status["progress"]) == ("Running", "numbers, word", "0/4")
    cluster.seen.clear()
    driver.turn()
    assert not [method for method, _ in cluster.seen if method not in ("GET",)]


def test_manifests_of_a_run_are_published_once(driver: Driver, store: Store) -> None:
    driver.to_the_end()
    assert len(manifests(store)) == 4


def test_pages_of_a_list_that_expire_are_listed_again(cluster: FakeCluster, store: Store) -> None:
    cluster.page = 2
    for number in range(5):
        cluster.add_run(f"run-{number}", recipe())
    expired = iter([False, True])
    cluster.fault = lambda method, path: refusal(410, "Expired") if method == "GET" and next(expired, False) else None
    found = {each["metadata"]["name"] for each in Client(cluster, "test").list(names.PLURAL)}
    assert found == {f"run-{number}" for number in range(5)}
