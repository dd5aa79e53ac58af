"""The local runner on toy stages in real processes: what it starts, what it survives, what it says."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flow.decide import Decision, Limits, State
from flow.graph import Edge, Graph, Node
from flow.inspect import print_log
from flow.local import LocalRun
from flow.manage import collect, forget, orphans
from flow.recipe import load_recipe
from flow.resolve import Resolver
from flow.runstate import cancel_key, next_attempt, read_resolved, read_state
from flow.session import Session
from stages.contract.artifact import Artifact
from stages.contract.catalog import spec
from stages.contract.errors import StageError
from stages.contract.store import Store, open_store
from tests.flow.test_recipe import write
from tests.support import REPOSITORY

ROWS = 24
CHUNKS = 6
DOUBLED = [2 * number for number in range(ROWS)]
START_S = 180.0


def toy_graph(shards: int = 1, **settings: Any) -> Graph:
    """numbers → lines: the second doubles each number, in chunks of four."""
    lines = spec("tests.toy.lines").settings.model_validate(settings)
    nodes = {
        "numbers": Node("numbers", "tests.toy.numbers", spec("tests.toy.numbers").settings(), {}, 1, "run"),
        "lines": Node("lines", "tests.toy.lines", lines, {"rows": Edge("numbers")}, shards, "run"),
    }
    return Graph("toy", nodes, {"dataset": "lines"})


def run(store: Store, graph: Graph, retries: int = 2, jobs: int = 2) -> tuple[Decision, LocalRun]:
    local = LocalRun(graph, store, Limits(retries), jobs, environment={"PYTHONPATH": str(REPOSITORY)})
    return local.run(), local


def doubled(store: Store) -> list[int]:
    key = read_resolved(store, "toy")["nodes"]["lines"]["key"]
    return [row["product"] for row in Artifact(store, key).table().to_pylist()]


def await_(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_graph_runs_to_its_end_and_the_second_time_finds_all_cached(file_store: Store, shards: int) -> None:
    decision, _ = run(file_store, toy_graph(shards))
    assert decision.ended and decision.exit_code == 0
    assert doubled(file_store) == DOUBLED
    again, local = run(file_store, toy_graph(shards))
    assert local.cached == {"numbers", "lines"} and again.exit_code == 0
    assert len(list(file_store.list("runs/toy/tasks/lines-"))) == 1


def test_a_node_is_not_mistaken_for_one_whose_name_begins_with_its_own(
    file_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As transfer's students and those of training seeds: `tailored.sft`, `tailored.sft-other`, `tailored.sft-1`."""
    for name in ("lines-other-1", "lines-1-7", "lines-3", "lines-2"):
        file_store.put(f"runs/toy/tasks/{name}.json", b"{}")
        file_store.put(f"runs/toy/logs/{name}/shard-00000/000000.log", f"{name}\n".encode())
    nodes = ("lines", "lines-other", "lines-1", "line")
    assert [next_attempt(file_store, "toy", each) for each in nodes] == [4, 2, 8, 1]
    session = Session(load_recipe(write(tmp_path)), file_store, toy_graph())
    print_log(session, "lines", 0, None, follow=False)
    assert capsys.readouterr().out == "lines-3\n"
    with pytest.raises(StageError, match=r"no attempt 7.*\[2, 3\]"):
        print_log(session, "lines", 0, 7, follow=False)


def test_nodes_of_the_same_name_in_two_recipes_of_one_store_keep_what_they_made(file_store: Store) -> None:
    one, two = toy_graph(), toy_graph(times=3)
    run(file_store, one)
    run(file_store, two)  # under the same name, as an edited recipe is
    assert doubled(file_store) == [3 * number for number in range(ROWS)]
    run(file_store, Graph("other", two.nodes, two.outputs))
    nodes = {name: read_resolved(file_store, name)["nodes"]["lines"]["key"] for name in ("toy", "other")}
    assert nodes["toy"] == nodes["other"]  # the same work, so the same artifact
    _, again = run(file_store, one)
    assert again.cached == {"numbers", "lines"} and doubled(file_store) == DOUBLED


def test_an_artifact_begun_with_other_shards_is_finished_with_them(file_store: Store, tmp_path: Path) -> None:
    run(file_store, toy_graph(2, fault="data", fault_at=1))
    decision, _ = run(file_store, toy_graph(3))
    assert decision.exit_code == 0
    assert doubled(file_store) == DOUBLED


def test_a_bug_is_tried_again_as_often_as_asked_and_then_named(file_store: Store) -> None:
    decision, _ = run(file_store, toy_graph(fault="bug"), retries=1)
    assert decision.exit_code == 70
    assert decision.states["lines"] is State.FAILED
    (failure,) = decision.failures
    assert "failed 2 times" in failure.message and "no such column" in failure.message
    state = read_state(file_store, "toy")
    assert state is not None and state.phase == "failed" and "no such column" in state.nodes["lines"]["message"]


def test_a_gate_stops_the_run_with_its_figure_and_keeps_what_is_done(file_store: Store) -> None:
    decision, _ = run(file_store, toy_graph(fault="gate", fault_at=2))
    assert decision.exit_code == 66
    assert "yield 0.1 is below 0.5" in decision.failures[0].message
    assert decision.states["numbers"] is State.DONE
    mended, _ = run(file_store, toy_graph())
    assert mended.exit_code == 0 and doubled(file_store) == DOUBLED


def test_bad_data_of_one_shard_let_the_others_finish(file_store: Store) -> None:
    decision, local = run(file_store, toy_graph(shards=3, fault="data", fault_at=9))
    assert decision.exit_code == 0  # no shard has a tenth chunk: the fault that is never met
    failed, local = run(open_store(str(file_store.uri) + "-other"), toy_graph(shards=3, fault="data", fault_at=1))
    assert failed.exit_code == 65
    assert "row 3 has no text" in failed.failures[0].message
    assert failed.states["lines"] is State.FAILED and local.resolver.published("lines") == frozenset()


def test_cancelling_keeps_the_chunks_and_the_next_run_carries_on(file_store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    graph = toy_graph(pause_s=0.8, diary=str(diary))

    def cancel_midway() -> None:
        await_(lambda: diary.exists() and len(diary.read_text().splitlines()) >= 2)
        file_store.put(cancel_key("toy"), b"now")

    threading.Thread(target=cancel_midway).start()
    _, local = run(file_store, graph)
    assert local.interrupted
    begun = len(diary.read_text().splitlines())
    assert begun < CHUNKS
    decision, _ = run(file_store, graph)
    assert decision.exit_code == 0 and doubled(file_store) == DOUBLED
    assert len(diary.read_text().splitlines()) <= CHUNKS + 1  # at most one chunk was begun twice


def test_a_killed_runner_takes_its_stages_along_and_loses_at_most_one_chunk(file_store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    script = (
        "from tests.flow.test_local import run, toy_graph; from stages.contract.store import open_store\n"
        f"run(open_store({file_store.uri!r}), toy_graph(pause_s=0.8, diary={str(diary)!r}))"
    )
    runner = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY)
    await_(lambda: diary.exists() and len(diary.read_text().splitlines()) >= 2)
    runner.kill()
    runner.wait()
    time.sleep(2.0)  # the stage gets SIGTERM as its runner dies and stops behind its chunk
    begun = len(diary.read_text().splitlines())
    time.sleep(1.0)
    assert len(diary.read_text().splitlines()) == begun < CHUNKS
    decision, _ = run(file_store, toy_graph(diary=str(diary)))
    assert decision.exit_code == 0 and doubled(file_store) == DOUBLED
    assert len(diary.read_text().splitlines()) <= CHUNKS + 1


def test_a_lost_file_is_made_again(file_store: Store) -> None:
    run(file_store, toy_graph())
    key = read_resolved(file_store, "toy")["nodes"]["lines"]["key"]
    (data,) = [entry.key for entry in file_store.list(f"{key}/") if "chunk-00001.rows" in entry.key]
    file_store.delete([data])
    decision, local = run(file_store, toy_graph())
    assert decision.exit_code == 0 and local.cached == {"numbers"}
    assert doubled(file_store) == DOUBLED


def looked(store: Store, graph: Graph) -> Resolver:
    resolver = Resolver(graph, store)
    resolver.look()
    return resolver


def test_rerunning_one_shard_makes_that_one_alone_again(file_store: Store, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    graph = toy_graph(3, diary=str(diary))
    run(file_store, graph)
    diary.unlink()
    assert forget(looked(file_store, graph), "lines", (1,), down=False) > 0
    decision, _ = run(file_store, graph)
    assert decision.exit_code == 0 and doubled(file_store) == DOUBLED
    assert {line.partition(":")[0] for line in diary.read_text().splitlines()} == {"1"}


def test_rerunning_from_a_node_downwards_makes_all_of_it_again(file_store: Store) -> None:
    graph = toy_graph()
    run(file_store, graph)
    forget(looked(file_store, graph), "numbers", (), down=True)
    _, local = run(file_store, graph)
    assert local.cached == frozenset() and doubled(file_store) == DOUBLED


def test_what_was_never_finished_is_garbage_once_its_run_is_left_alone(file_store: Store) -> None:
    file_store.put("runs/toy/recipe.json", b"{}")
    run(file_store, toy_graph(shards=2, fault="data", fault_at=1))
    begun = {key.split("/shard")[0] for key, _ in file_store.list("artifacts/tests.toy.lines/") if "/shard" in key}
    assert begun and orphans(file_store, days=7) == []
    assert begun <= {"/".join(entry.key.split("/")[:3]) for entry in orphans(file_store, days=-1)}


def test_shards_at_work_at_once_see_gpus_of_their_own(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow.local.gpu_names", lambda: ["4", "5", "6"])
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    seen: list[str] = []
    popen = subprocess.Popen

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(named["env"]["CUDA_VISIBLE_DEVICES"])
        assert named["env"]["GOMP_SPINCOUNT"] == "1000", "side by side they share cores"
        return popen(*arguments, **named)

    monkeypatch.setattr(subprocess, "Popen", watched)
    decision, _ = run(file_store, toy_graph(shards=2, pause_s=0.5), jobs=2)
    assert decision.exit_code == 0
    assert sorted(seen[-2:]) == ["4,6", "5"]


def test_garbage_is_what_no_manifest_lists_and_what_no_run_uses(file_store: Store) -> None:
    run(file_store, toy_graph())
    key = read_resolved(file_store, "toy")["nodes"]["lines"]["key"]
    file_store.put(f"{key}/shard-00000/attempt=dead/chunk-00000.rows.parquet", b"half")
    assert [entry.key for entry in orphans(file_store, days=7)] == [
        f"{key}/shard-00000/attempt=dead/chunk-00000.rows.parquet"
    ]
    run(file_store, toy_graph(times=3))  # the run now uses another artifact of `lines`
    assert not any("manifest" in entry.key for entry in orphans(file_store, days=7)), "young artifacts are spared"
    old = orphans(file_store, days=-1)
    assert f"{key}/manifest.json" in [entry.key for entry in old]
    collect(file_store, old)
    assert not list(file_store.list(f"{key}/"))
    decision, _ = run(file_store, toy_graph(times=3))
    assert decision.exit_code == 0
