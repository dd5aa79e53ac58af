"""What a plan says before anything is spent: calls and tokens of each method, its time, and the budget they share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flow.asked import Asked, asked
from flow.cli import table
from flow.compared import MethodCost, matched, method_costs
from flow.estimate import Estimate, estimates
from flow.graph import Graph, build
from flow.past import Past, past_runs
from flow.planned import Planned, planned, show
from flow.recipe import RecipeBase, load_recipe
from flow.session import open_recipe
from stages.contract.ledger import Ledger
from stages.contract.manifest import Manifest, encode
from stages.contract.store import FileStore
from tests.flow.test_recipe import RECIPES, write

SIZES: dict[str, Any] = {
    "instructions": {"prompts": 10, "samples": 4, "sampling": {"max_tokens": 50}},
    "curate": {"warmup_rows": 8},
    "responses": {"samples": 3, "warmup_samples": 2, "sampling": {"max_tokens": 100}},
    "fresh": {"instructions": {"prompts": 5}},
    "pairs": {"policy": "ranked"},
}
SERVER = {"kind": "openai", "base_url": "http://localhost:1/v1", "model": "judge-1"}
ARTE: dict[str, Any] = {
    "method": "arte",
    "measure": False,
    "select": {"per_task": 20},
    "irt": {"size": 10},
    "questions": {"prompts": 4},
}


def recipe(folder: Path, **changes: Any) -> RecipeBase:
    sizes = {} if changes.get("method") == "arte" else SIZES
    return load_recipe(write(folder, **{**sizes, **changes}))


def calls(folder: Path, **changes: Any) -> dict[str, Asked]:
    return {each.node: each for each in asked(build(recipe(folder, **changes)))}


def methods(found: RecipeBase) -> dict[str, MethodCost]:
    return {each.method: each for each in method_costs(found, build(found), {})}


def test_the_teachers_calls_and_tokens_are_counted(tmp_path: Path) -> None:
    found = calls(tmp_path)
    assert (found["it1.instructions"].calls, found["it1.instructions"].written) == (40, 40 * 50)
    assert found["it1.responses"].calls == 32 * 3 + 8 * 2
    assert found["it1.responses"].written == found["it1.responses"].calls * 100
    assert found["tailored.responses"].calls == 20


def test_a_judge_is_asked_for_each_rating_and_reads_rubric_and_row_each_time(tmp_path: Path) -> None:
    judge = {
        "engine": SERVER,
        "samples": 5,
        "template": "Rate {{ response }}. " + "x" * 4500,
        "sampling": {"max_tokens": 7},
    }
    found = calls(tmp_path, compare=["self-reward"], judge=judge)["self-reward.it1.judge"]
    assert (found.calls, found.written, found.by) == (96 * 5, 96 * 5 * 7, "judge-1")
    assert 480 * (1000 + 100) < found.read < 480 * (1000 + 100 + 150)


def test_the_loss_reads_each_candidate_once_and_writes_nothing(tmp_path: Path) -> None:
    found = calls(tmp_path, compare=["llm2llm"], loss={"max_tokens": 64})["llm2llm.it1.loss"]
    assert (found.calls, found.read, found.written) == (96, 96 * 64, 0)


def test_in_context_scores_compute_an_example_once_only_where_prefixes_are_cached(tmp_path: Path) -> None:
    with_cache = calls(tmp_path, **ARTE)["it1.incontext"]
    without = calls(tmp_path, **ARTE, incontext={"engine": {"prefix_caching": False}})["it1.incontext"]
    assert with_cache.calls == without.calls == 3 * 20 * 4 * 10  # tasks, questions, reasoning prompts, preference set
    assert without.read > 4 * with_cache.read


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "equal rows: every student (tailored, self-instruct) trains on as many as the branch with the fewest"),
        ({"sft": {"rows": 30}}, "equal rows: every student (tailored, self-instruct) trains on 30 (sft.rows)"),
        ({"budget": {"match": "tokens"}}, "equal tokens"),
        ({"budget": {"match": "device_seconds"}}, "equal device seconds"),
        ({"budget": {"match": "none"}}, "nothing is matched"),
    ],
)
def test_a_plan_says_what_compared_students_get_the_same_of(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in matched(recipe(tmp_path, compare=["self-instruct", "no-finetuning"], **changes))


def test_a_plan_of_one_branch_matches_nothing(tmp_path: Path) -> None:
    assert matched(recipe(tmp_path)) == ""
    assert matched(recipe(tmp_path, compare=["no-finetuning"])) == ""


def test_each_method_is_counted_as_if_it_were_alone(tmp_path: Path) -> None:
    found = methods(recipe(tmp_path, compare=["self-instruct", "self-reward", "llm2llm", "random"]))
    assert [(each.method, each.signal, each.update) for each in found.values()] == [
        ("tailored", "influence", "dpo"),
        ("self-instruct", "", ""),
        ("self-reward", "judge", "dpo"),
        ("llm2llm", "loss", "reseed"),
        ("random", "random", "dpo"),
    ]
    alone = methods(recipe(tmp_path, compare=["self-reward"]))
    assert found["self-reward"] == alone["self-reward"]
    assert found["self-reward"].calls == found["tailored"].calls + 96 * 3  # the same candidates, and the ratings
    assert found["self-instruct"].calls == 20 + 20 and found["self-instruct"].scored == 0


def test_arte_is_counted_by_the_same_measures(tmp_path: Path) -> None:
    found = methods(recipe(tmp_path, **ARTE, compare=["self-instruct"]))
    assert (found["tailored"].signal, found["tailored"].scored) == ("incontext", 240)
    assert found["tailored"].calls > 2400 > found["self-instruct"].calls


SMOLLM = {"kind": "model", "source": {"model": "builtin:smollm2"}, "digest": "d"}
OTHER = {"kind": "model", "source": {"model": "org/other-8b"}, "digest": "d"}
PRUNED = {"kind": "model", "source": {"model": "builtin:smollm2", "drop_layers": [3]}, "digest": "d"}


def made_by(fingerprint: str, stage: str) -> dict[str, str]:
    return {"kind": "artifact", "key": f"artifacts/{stage}/{fingerprint}", "digest": "d"}


PROBED = {"checkpoint": made_by("f", "warmup"), "reference": made_by("f", "prepare")}


def leave(
    store: FileStore,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    rows: int,
    fingerprint: str = "f",
    tables: Mapping[str, int] | None = None,
    finished: str = "2026-01-01T00:00:00Z",
) -> None:
    """A node that took 20 s to load its model and a second for each row."""
    manifest = Manifest(
        stage=stage,
        fingerprint=fingerprint,
        digest="d",
        shards=(),
        tables=dict(tables or {}),
        ledger=Ledger(seconds={"load": 20.0, "compute": float(rows)}, rows_in=rows),
        run="a",
        node="a",
        settings=dict(settings),
        inputs=dict(inputs),
        finished=finished,
    )
    store.put(f"artifacts/{stage}/{fingerprint}/manifest.json", encode(manifest))


def settings_of(graph: Graph, node: str, **changes: Any) -> dict[str, Any]:
    return {**graph.nodes[node].settings.model_dump(mode="json"), **changes}


def nothing_past(graph: Graph) -> Past:
    return {stage: [] for stage in {"audit", *(node.stage for node in graph.nodes.values())}}


def estimated(folder: Path, **changes: Any) -> dict[str, Estimate]:
    """Of a recipe in a store without past runs."""
    graph = build(recipe(folder, **changes))
    return estimates(graph, nothing_past(graph))


def test_a_past_run_of_other_size_is_scaled_by_rows_but_for_its_start(tmp_path: Path) -> None:
    store, graph = FileStore(tmp_path / "store"), build(recipe(tmp_path))
    leave(store, "instructions", settings_of(graph, "it1.instructions"), {"teacher": SMOLLM}, rows=10)
    found = estimates(graph, past_runs(graph, store))
    assert found["it1.instructions"].seconds == pytest.approx(20 + 40)
    assert found["it1.instructions"].past and not found["it1.responses"].past


def test_each_draw_of_an_audits_noise_is_a_pass_of_each_candidate_and_one_of_the_base(tmp_path: Path) -> None:
    def seconds(candidates: int, draws: int) -> float:
        audit = {"size": 8, "noise_candidates": candidates, "noise_draws": draws}
        return estimated(tmp_path, audit=audit)["it1.audit"].seconds

    one_pass = seconds(2, 4) - seconds(4, 2)  # as many evaluations, and two passes of the base more
    assert one_pass > 0
    assert seconds(4, 4) - seconds(2, 2) > 6 * one_pass
    assert seconds(99, 2) == seconds(8, 2)  # no more than there are


@pytest.mark.parametrize(
    ("teacher", "changes", "counts"),
    [
        (SMOLLM, {}, True),
        (SMOLLM, {"prompts": 999, "seed": 5, "chunk_rows": 7}, True),
        (OTHER, {}, False),
        (made_by("small", "dpo"), {}, True),
        (made_by("large", "dpo"), {}, False),
        (made_by("lost", "dpo"), {}, False),
        (SMOLLM, {"engine": {"kind": "openai", "model": "judge-1"}}, False),
        (SMOLLM, {"sampling": {"max_tokens": 7}}, False),
    ],
    ids=["equal", "more rows", "large", "trained", "trained from a large one", "unknown", "server", "shorter"],
)
def test_a_past_run_counts_only_with_as_large_a_model_and_settings_that_take_as_long(
    tmp_path: Path, teacher: dict[str, Any], changes: dict[str, Any], counts: bool
) -> None:
    store, graph = FileStore(tmp_path / "store"), build(recipe(tmp_path))
    leave(store, "dpo", {}, {"teacher": SMOLLM, "pairs": made_by("f", "pairs")}, 10, fingerprint="small")
    leave(store, "dpo", {}, {"teacher": OTHER}, 10, fingerprint="large")
    leave(store, "instructions", settings_of(graph, "it1.instructions", **changes), {"teacher": teacher}, rows=10)
    assert estimates(graph, past_runs(graph, store))["it1.instructions"].past == counts


def test_an_estimate_goes_by_the_runs_that_finished_last_whatever_their_fingerprints(tmp_path: Path) -> None:
    store, graph = FileStore(tmp_path / "store"), build(recipe(tmp_path))
    for number in range(25):
        finished = f"2026-01-{1 + number:02}T00:00:00Z"
        leave(store, "audit", {}, {}, rows=number, fingerprint=f"f{25 - number:02}", finished=finished)
    assert [each.rows for each in past_runs(graph, store)["audit"]] == list(range(5, 25))


@pytest.mark.parametrize(
    ("changes", "reference", "counts"),
    [
        ({}, 80, True),
        ({"method": "first_order"}, 80, False),
        ({"forward_dtype": "bfloat16"}, 80, False),
        ({"gradient_groups": 2}, 80, False),
        ({}, 600, False),
    ],
    ids=["equal", "method", "dtype", "groups", "more reference rows"],
)
def test_past_influence_counts_by_its_method_and_its_reference_rows(
    tmp_path: Path, changes: dict[str, Any], reference: int, counts: bool
) -> None:
    store, graph = FileStore(tmp_path / "store"), build(recipe(tmp_path, influence={"method": "exact"}))
    sides = {"probe": reference // 2 + 5, "heldout": reference // 2 - 5}  # a side is a matter of chance
    leave(store, "prepare", settings_of(graph, "prepare"), {}, reference, tables=sides)
    leave(store, "warmup", {}, {"student": PRUNED}, 8)
    leave(store, "influence", settings_of(graph, "it1.influence", **changes), PROBED, rows=48)
    found = estimates(graph, past_runs(graph, store))["it1.influence"]
    assert found.past == counts
    assert not counts or found.seconds == pytest.approx(20 + 96)


@pytest.mark.parametrize(
    ("changes", "node", "given", "rows"),
    [
        ({"pairs": {"policy": "best_worst", "heldout_share": 0.2}}, "it1.dpo", {"teacher": SMOLLM}, 8),
        (
            {"audit": {"size": 30}},
            "it1.audit",
            {"checkpoint": made_by("f", "warmup"), "reference": made_by("f", "prepare")},
            30,
        ),
        ({"seeds": [1, 2]}, "evaluate", {"student.base": PRUNED}, 3 * 40),
        ({"benchmarks": ["mtbench"]}, "mtbench.replies-base", {"model": PRUNED}, 8 * 2),
        ({**ARTE, "questions": {"prompts": 4, "more": 6}}, "it1.questions", {"teacher": SMOLLM}, 3 * 4 * 6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_past_run_of_each_stage_is_scaled_to_the_rows_that_are_planned(
    tmp_path: Path, changes: dict[str, Any], node: str, given: dict[str, Any], rows: int
) -> None:
    store, graph = FileStore(tmp_path / "store"), build(recipe(tmp_path, **changes))
    leave(store, "prepare", {"probe_share": 0.5}, {}, 80, tables={"probe": 40, "heldout": 40})
    leave(store, "warmup", {}, {"student": PRUNED}, 8)
    stage = graph.nodes[node].stage
    leave(store, stage, settings_of(graph, node), given, rows=2, tables={"rows": 2})
    found = estimates(graph, past_runs(graph, store))[node]
    assert found.past and found.seconds == pytest.approx(20 + rows)


def test_a_past_run_tells_nothing_where_nobody_knows_how_many_rows_there_will_be(tmp_path: Path) -> None:
    asked = {"benchmarks": ["winrate"], "evalset": {"winrate": {"uri": "hf:org/asked"}}}
    store, graph = FileStore(tmp_path / "store"), build(recipe(tmp_path, **asked))
    node = "winrate.replies-base"
    leave(store, "replies", settings_of(graph, node), {"model": PRUNED}, rows=2, tables={"rows": 2})
    assert node not in estimates(graph, past_runs(graph, store))


def test_without_a_past_run_arithmetic_grows_with_what_is_to_be_written(tmp_path: Path) -> None:
    small = estimated(tmp_path)
    large = estimated(tmp_path, responses={"samples": 30, "sampling": {"max_tokens": 100}})
    assert large["it1.responses"].seconds > 4 * small["it1.responses"].seconds
    assert large["it1.influence"].seconds > 2 * small["it1.influence"].seconds
    assert large["it1.dpo"].seconds == small["it1.dpo"].seconds


def test_the_time_of_a_model_behind_a_server_is_unknown(tmp_path: Path) -> None:
    found = estimated(tmp_path, compare=["self-reward"], judge={"engine": SERVER})
    assert "self-reward.it1.judge" not in found and "self-reward.it1.dpo" in found


def test_the_experiment_fits_ninety_minutes_of_two_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    found = build(load_recipe(RECIPES / "effect-smollm2.yaml"))
    known = estimates(found, nothing_past(found))
    assert set(known) == set(found.nodes)
    assert sum(each.seconds for each in known.values()) < 90 * 60


def test_the_experiment_compares_equal_rows_and_has_a_control_and_seeds() -> None:
    found: Any = load_recipe(RECIPES / "effect-smollm2.yaml")
    assert found.compare == ("self-instruct", "random") and len(found.seeds) == 3
    assert found.student.drop_layers and not found.teacher.drop_layers
    assert found.responses.samples > 1 and found.pairs.least_gap_se > 0
    assert matched(found).startswith("equal rows")
    assert found.fresh["instructions"]["seed"] != found.instructions.seed


def test_people_are_shown_every_method_and_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = write(tmp_path, **SIZES, compare=["self-reward"], judge={"engine": SERVER})
    found = planned(open_recipe(path, str(tmp_path / "store"), [], write=False))
    show(found, table)
    shown = " ".join(capsys.readouterr().out.split())
    assert "self-reward.it1.judge 288" in shown and "96 candidates x 3 ratings judge-1" in shown
    assert "what each method takes, as if alone, at most" in shown and "self-reward judge dpo 96" in shown
    assert "equal rows: every student (tailored, self-reward)" in shown
    told = found.as_json()
    assert {each["node"] for each in told["calls"]} >= {"it1.instructions", "self-reward.it1.judge"}
    assert [each["method"] for each in told["methods"]] == ["tailored", "self-reward"]


def test_more_responses_must_be_generated_before_they_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = write(tmp_path, **SIZES | {"responses": {"samples": 1, "warmup_samples": 1}})
    found = planned(open_recipe(path, str(tmp_path / "store"), [], write=False))
    show(found, table)
    assert "generating them" in capsys.readouterr().out
    times = {each.responses: each.generation for each in found.influence if each.node == "it1.influence"}
    # 32 candidates and 8 responses for the warm-up
    (now,) = (each.seconds for each in found.lines if each.node == "it1.responses")
    assert times == {1: pytest.approx(now, abs=0.1), 4: pytest.approx(now * (4 * 32 + 8) / (32 + 8), abs=0.5)}
    served = write(tmp_path, **SIZES | {"responses": {"samples": 1, "engine": SERVER}})
    behind = planned(open_recipe(served, str(tmp_path / "other"), [], write=False)).influence
    assert behind and all(each.generation is None for each in behind if each.node == "it1.influence")


def lines_of(path: Path, count: int, characters: int = 8) -> dict[str, str]:
    row = json.dumps({"instruction": "a", "response": "b" * characters, "turns": ["a", "b"]})
    path.write_text(f"{row}\n" * count)
    return {"uri": str(path)}


def test_questions_and_reference_rows_of_the_users_own_files_are_counted_before_they_are_copied(tmp_path: Path) -> None:
    table_of_questions = tmp_path / "questions.parquet"
    pq.write_table(pa.table({"instruction": ["a"] * 33}), table_of_questions)
    path = write(
        tmp_path,
        **SIZES,
        compare=["self-instruct"],
        benchmarks=["winrate", "mtbench"],
        evalset={"winrate": {"uri": str(table_of_questions)}, "mtbench": lines_of(tmp_path / "turns.jsonl", 21)},
        prepare={"reference": lines_of(tmp_path / "reference.jsonl", 600, characters=4500)},
    )
    found = planned(open_recipe(path, str(tmp_path / "store"), [], write=False))
    counted = {each.node: each.calls for each in found.calls}
    assert (counted["winrate.replies-base"], counted["winrate.judge"]) == (33, 2 * 2 * 33)
    assert (counted["mtbench.replies-base"], counted["mtbench.judge"]) == (21 * 2, 3 * 21 * 2)
    assert found.uncounted == {}
    assert "300 reference rows of about 10" in found.influence[0].assumed
    assert not (tmp_path / "store").exists()


def test_questions_that_are_elsewhere_are_named_with_what_would_tell_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "250")

    def plan(**evalset: Any) -> Planned:
        path = write(tmp_path, **SIZES, benchmarks=["winrate"], evalset={"winrate": {"uri": "hf:org/asked"}, **evalset})
        return planned(open_recipe(path, str(tmp_path / "store"), [], write=False))

    found = plan()
    assert set(found.uncounted) == {"winrate.replies-base", "winrate.replies-tailored", "winrate.judge"}
    assert set(found.as_json()["uncounted"]) == set(found.uncounted)
    show(found, table)
    shown = " ".join(capsys.readouterr().out.split())
    assert "winrate.judge unknown its questions are in no file of this machine; evalset.limit says" in shown
    limited = plan(limit=50)
    assert limited.uncounted == {}
    assert {each.node: each.calls for each in limited.calls}["winrate.judge"] == 50 * 2


@pytest.mark.parametrize("method", ["montessori", "arte"])
def test_every_node_of_a_recipe_with_models_that_are_here_has_an_estimate(tmp_path: Path, method: str) -> None:
    more = (
        ARTE
        if method == "arte"
        else {"benchmarks": ["winrate", "mtbench", "harness"], "transfer": {"other": {"model": "a/b-1b"}}}
    )
    tasks = {"tasks": {"test": 10}} if method == "arte" else {}
    graph = build(recipe(tmp_path, compare=["self-instruct"], seeds=[1, 2], **more, **tasks))
    assert set(graph.nodes) == set(estimates(graph, nothing_past(graph)))
