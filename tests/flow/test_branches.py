"""Methods side by side: what branches share, what each adds, and at which budget they are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flow.graph import Edge, Graph, build
from flow.methods import SIGNALS
from flow.recipe import load_recipe
from stages.contract.errors import ExitCode, StageError
from stages.models.settings import ModelSource
from tests.flow.test_recipe import refused, write

OTHER = {"model": "builtin:smollm2", "drop_layers": [5]}


def graph(folder: Path, **changes: Any) -> Graph:
    return build(load_recipe(write(folder, **changes)))


def of_branch(found: Graph, branch: str) -> list[str]:
    return [name.removeprefix(f"{branch}.") for name in found.nodes if name.startswith(f"{branch}.")]


FINAL = ["instructions", "curate", "responses", "diversity", "influence"]
ADDED = {  # branch → its own nodes besides those of its final data
    "self-instruct": [],
    "self-reward": ["it1.judge", "it1.aggregate", "it1.pairs", "it1.dpo"],
    "llm2llm": ["it1.loss", "it1.aggregate", "it1.reseed"],
    "bootstrap": ["it1.reseed"],
    "random": ["it1.random", "it1.aggregate", "it1.pairs", "it1.dpo"],
}


@pytest.mark.parametrize(("branch", "added"), ADDED.items(), ids=list(ADDED))
def test_a_branch_adds_only_what_differs(tmp_path: Path, branch: str, added: list[str]) -> None:
    found = graph(tmp_path, compare=[branch])
    assert of_branch(found, branch) == [*added, *FINAL, "budget", "sft"]
    assert f"student.{branch}" in found.nodes["evaluate"].inputs


def test_all_branches_score_the_same_candidates(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=list(ADDED)).nodes
    for name in ("self-reward.it1.judge", "llm2llm.it1.loss", "random.it1.random"):
        assert nodes[name].inputs["rows"] == Edge("it1.responses")
    assert nodes["llm2llm.it1.loss"].inputs["student"] == Edge("it1.warmup")
    assert isinstance(nodes["self-reward.it1.judge"].inputs["judge"], ModelSource)  # the teacher itself
    assert nodes["random.it1.random"].inputs["scores"] == Edge("it1.influence")


def test_every_branch_s_final_data_are_measured_by_the_recipe_s_own_probes(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=list(ADDED), iterations=2).nodes
    for branch in ("tailored", *ADDED):
        assert nodes[f"{branch}.influence"].inputs["checkpoint"] == Edge("it2.warmup")


def test_a_signal_that_the_run_has_already_is_not_computed_twice(tmp_path: Path) -> None:
    found = graph(tmp_path, signals=["judge", "loss"], compare=["self-reward", "llm2llm"])
    assert [name for name in found.nodes if name.endswith((".judge", ".loss"))] == ["it1.judge", "it1.loss"]
    assert found.nodes["self-reward.it1.aggregate"].inputs["scores"] == Edge("it1.judge")


def test_from_the_second_iteration_on_a_branch_goes_its_own_way(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-reward", "llm2llm", "random"], iterations=2).nodes
    assert nodes["self-reward.it2.instructions"].inputs["teacher"] == Edge("self-reward.it1.dpo")
    assert nodes["self-reward.it2.dpo"].inputs["teacher"] == Edge("self-reward.it1.dpo")
    assert "self-reward.it2.warmup" not in nodes  # a judge needs no student
    assert nodes["llm2llm.it2.instructions"].inputs["seeds"] == Edge("llm2llm.it1.reseed")
    assert nodes["llm2llm.it2.loss"].inputs["student"] == Edge("llm2llm.it2.warmup")
    assert nodes["random.it2.random"].inputs["scores"] == Edge("it2.influence")


def test_reseeding_shows_the_unmodified_teacher_other_seeds(tmp_path: Path) -> None:
    found = graph(tmp_path, compare=["llm2llm"])
    node = found.nodes["llm2llm.instructions"]
    assert node.inputs["seeds"] == Edge("llm2llm.it1.reseed")
    assert isinstance(node.inputs["teacher"], ModelSource)
    curate = found.nodes["llm2llm.curate"].inputs
    assert (curate["seeds"], curate["shown"]) == (Edge("prepare"), Edge("llm2llm.it1.reseed"))
    assert "shown" not in found.nodes["tailored.curate"].inputs


def test_the_untrained_student_is_a_branch_without_nodes(tmp_path: Path) -> None:
    with_it, without = graph(tmp_path, compare=["no-finetuning"]), graph(tmp_path)
    assert list(with_it.nodes) == list(without.nodes)
    settings: Any = with_it.nodes["report"].settings
    assert settings.baseline == "base"


@pytest.mark.parametrize("signal", SIGNALS)
def test_any_signal_can_be_the_recipe_s_own(tmp_path: Path, signal: str) -> None:
    nodes = graph(tmp_path, signal=signal, pairs={"policy": "ranked"}, measure=False).nodes
    assert nodes["it1.aggregate"].inputs["scores"] == Edge(f"it1.{signal}")
    assert ("it1.warmup" in nodes) == (signal in ("influence", "loss"))
    assert ("it1.influence" in nodes) == (signal == "influence")


def test_further_signals_are_for_the_report_alone(tmp_path: Path) -> None:
    nodes = graph(tmp_path, signals=["judge", "loss", "random"]).nodes
    assert nodes["it1.aggregate"].inputs["scores"] == Edge("it1.influence")
    assert nodes["it1.random"].inputs["scores"] == Edge("it1.influence")
    assert {"node.it1.judge", "node.it1.loss", "node.it1.random"} <= set(nodes["report"].inputs)


def test_scores_without_a_sign_are_not_paired_by_sign(tmp_path: Path) -> None:
    for signal in ("judge", "loss"):
        assert f"those of {signal} have no sign" in refused(write(tmp_path, signal=signal))
    settings: Any = graph(tmp_path, compare=["self-reward"]).nodes["self-reward.it1.pairs"].settings
    assert settings.policy == "best_worst"
    settings = (
        graph(tmp_path, compare=["self-reward"], pairs={"policy": "ranked"}).nodes["self-reward.it1.pairs"].settings
    )
    assert settings.policy == "ranked"


def test_the_control_is_not_stopped_for_being_unreliable(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["random"], pairs={"least_reliability": 0.5}).nodes
    own: Any = nodes["it1.pairs"].settings
    control: Any = nodes["random.it1.pairs"].settings
    assert (own.least_reliability, control.least_reliability) == (0.5, 0)
    assert own.model_copy(update={"least_reliability": 0.0}) == control


def test_responses_can_be_optimised(tmp_path: Path) -> None:
    pairs = {
        optimise: graph(tmp_path, pairs={"optimise": optimise}).nodes["it1.pairs"].inputs
        for optimise in ("instructions", "both")
    }
    assert set(pairs["instructions"]) == {"scores"}
    assert pairs["both"]["response_scores"] == Edge("it1.influence")
    assert pairs["both"]["responses"] == Edge("it1.responses")


def test_the_student_of_the_next_iteration_is_the_recipe_s_or_the_previous_one(tmp_path: Path) -> None:
    base, previous = (graph(tmp_path, iterations=3, iterate_student=each).nodes for each in ("base", "previous"))
    assert isinstance(base["it2.warmup"].inputs["student"], ModelSource)
    assert isinstance(previous["it1.warmup"].inputs["student"], ModelSource)
    assert previous["it3.warmup"].inputs["student"] == Edge("it2.warmup")
    assert isinstance(previous["tailored.sft"].inputs["student"], ModelSource)


def test_further_students_learn_from_every_branch_s_data(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-instruct"], transfer={"other": OTHER}).nodes
    assert nodes["self-instruct.sft-other"].inputs["rows"] == Edge("self-instruct.budget")
    assert set(nodes["transfer.other"].inputs) == {
        "student.base",
        "student.tailored",
        "student.self-instruct",
        "reference",
    }
    assert "student.other" not in nodes["evaluate"].inputs


def test_further_students_have_the_training_seeds_too(tmp_path: Path) -> None:
    nodes = graph(tmp_path, transfer={"other": OTHER}, seeds=[1, 2]).nodes
    assert nodes["tailored.sft-other-2"].settings.seed == 2  # type: ignore[attr-defined]
    assert nodes["transfer.other"].inputs["student.tailored.seed-2"] == Edge("tailored.sft-other-2")


def test_branches_train_on_what_the_budget_leaves_them(tmp_path: Path) -> None:
    found = graph(tmp_path, compare=["self-instruct"])
    assert found.nodes["tailored.sft"].inputs["rows"] == Edge("tailored.budget")
    assert set(found.nodes["tailored.budget"].inputs) == {"own.tailored", "branch.tailored", "branch.self-instruct"}
    assert found.outputs["dataset"] == "tailored.responses"


@pytest.mark.parametrize("changes", [{"sft": {"rows": 10}}, {"budget": {"match": "none"}}, {"compare": []}])
def test_nothing_is_cut_where_nothing_needs_to_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    nodes = graph(tmp_path, **{"compare": ["self-instruct"], **changes}).nodes
    assert nodes["tailored.sft"].inputs["rows"] == Edge("tailored.responses")
    assert not any(node.stage == "budget" for node in nodes.values())


def test_device_seconds_are_those_of_everything_that_a_branch_s_data_come_from(tmp_path: Path) -> None:
    budget = {"match": "device_seconds", "prompts": {"self-instruct": 5000}}
    nodes = graph(tmp_path, compare=["self-instruct"], budget=budget).nodes
    inputs = set(nodes["tailored.budget"].inputs)
    assert {
        f"before.tailored.it1.{each}" for each in ("instructions", "responses", "warmup", "influence", "dpo")
    } <= inputs
    assert {f"final.self-instruct.self-instruct.{each}" for each in ("instructions", "responses")} <= inputs
    assert not any(name.startswith("before.self-instruct.it1") for name in inputs)
    assert not any("influence" in name for name in inputs if name.startswith("final."))  # measuring is not making
    theirs: Any = nodes["self-instruct.instructions"].settings
    ours: Any = nodes["tailored.instructions"].settings
    assert (theirs.prompts, ours.prompts) == (5000, 2500)


SERVER = {"kind": "openai", "base_url": "http://localhost:8000/v1", "model": "m"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compare": ["self-reward"], "judge": {"engine": SERVER}}, "self-reward.it1.judge asks a server"),
        (
            {"compare": ["self-instruct"], "fresh": {"responses": {"engine": SERVER}}},
            "tailored.responses asks a server",
        ),
    ],
)
def test_device_seconds_of_a_server_cannot_be_matched(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StageError, match=words) as caught:
        graph(tmp_path, budget={"match": "device_seconds"}, **changes)
    assert caught.value.code == ExitCode.BAD_SETTINGS and "match rows or tokens" in str(caught.value)
    graph(tmp_path, budget={"match": "tokens"}, **changes)


def test_a_server_that_no_student_s_data_come_from_is_no_hindrance(tmp_path: Path) -> None:
    """A further signal is for the report alone."""
    graph(
        tmp_path, compare=["self-instruct"], signals=["judge"], judge={"engine": SERVER},
        budget={"match": "device_seconds"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compare": ["self-instruct", "self-instruct"]}, "'self-instruct' stands twice"),
        ({"compare": ["self-instrukt"]}, "compare.0"),
        ({"signals": ["incontekst"]}, "signals.0"),
        ({"budget": {"match": "tokens"}, "sft": {"rows": 5}}, "sft.rows fixes the rows"),
        ({"budget": {"prompts": {"self-reward": 5}}}, "there is no branch 'self-reward'"),
        ({"transfer": {"The Other": OTHER}}, "not 'The Other'"),
        ({"pairs": {"optimise": "response"}}, "pairs.optimise"),
        ({"method": "self-instruct", "signals": ["judge"]}, "signals: method self-instruct does not read it"),
        ({"method": "self-instruct", "compare": ["random"]}, "compare: method self-instruct does not read it"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refused(write(tmp_path, **changes))
