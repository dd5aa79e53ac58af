"""ARTE's graph and recipe: its nodes, what they share, and the files that a recipe brings with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flow.asked import asked
from flow.bundled import copy_recipe
from flow.counts import ways
from flow.graph import Edge, Graph, build
from flow.recipe import load_recipe
from flow.session import find_run, open_recipe
from stages.contract.catalog import spec
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore
from stages.models.settings import ModelSource
from tests.flow.test_recipe import RECIPES, refused, write

ROUND = ["questions", "select", "rationales", "diversity", "incontext", "preferences", "dpo"]
DATA = ["questions", "select", "rationales", "diversity", "sft"]


def graph(folder: Path, **changes: Any) -> Graph:
    return build(load_recipe(write(folder, method="arte", measure=False, **changes)))


def test_the_graph_is_the_papers_procedure(tmp_path: Path) -> None:
    assert list(graph(tmp_path).nodes) == [
        "tasks", "panel.student", "panel.teacher", "irt", *(f"it1.{each}" for each in ROUND),
        *(f"tailored.{each}" for each in DATA), "base.answers", "tailored.answers", "accuracy", "comparison", "report",
    ]  # fmt: skip


def test_every_node_comes_after_what_it_needs_and_has_what_its_stage_asks_for(tmp_path: Path) -> None:
    found = graph(tmp_path, iterations=2, compare=["self-instruct"], seeds=[1, 2])
    seen: set[str] = set()
    for node in found.nodes.values():
        assert set(node.needs) <= seen
        seen.add(node.name)
        for wanted in spec(node.stage).inputs:
            prefix = wanted.removesuffix("*")
            assert any(name == wanted or (wanted.endswith("*") and name.startswith(prefix)) for name in node.inputs)
    assert set(found.outputs.values()) <= seen


def test_the_panel_answers_the_validation_questions_and_students_those_of_the_test(tmp_path: Path) -> None:
    panel = {"models": {"small": {"model": "builtin:smollm2"}}, "shots": [2, 0]}
    nodes = graph(tmp_path, panel=panel, answers={"shots": [0, 1]}).nodes
    asked: Any = nodes["panel.small"].settings
    assert (asked.role, asked.shots) == ("validation", (0, 2))
    told: Any = nodes["tailored.answers"].settings
    assert (told.role, told.shots) == ("test", (0, 1))
    assert nodes["irt"].inputs["answers.small"] == Edge("panel.small")


def test_a_tasks_questions_are_alike_by_its_form_so_only_gates_that_are_set_stand(tmp_path: Path) -> None:
    node: Any = graph(tmp_path).nodes["it1.diversity"]
    assert (node.settings.most_self_rouge, node.settings.most_in_one_cluster) == (1.0, 1.0)
    assert node.settings.least_kept == 0.5
    assert node.inputs == {
        "instructions": Edge("it1.questions"),
        "rows": Edge("it1.rationales"),
        "evaluation.tasks": Edge("tasks"),  # what of the test's questions the drafts repeat
    }
    node = graph(tmp_path, diversity={"most_self_rouge": 0.9}).nodes["tailored.diversity"]
    assert (node.settings.most_self_rouge, node.settings.least_distinct) == (0.9, 0.0)


@pytest.mark.parametrize(
    ("compare", "baseline"),
    [(["no-finetuning", "self-instruct"], "base"), (["random", "no-finetuning"], "random")],
)
def test_comparison_and_report_have_the_same_baseline(tmp_path: Path, compare: list[str], baseline: str) -> None:
    nodes: Any = graph(tmp_path, compare=compare).nodes
    assert (nodes["comparison"].settings.baseline, nodes["report"].settings.baseline) == (baseline, baseline)


def test_gates_that_are_off_stay_off_when_the_recipe_comes_back_from_the_store(tmp_path: Path) -> None:
    path = write(tmp_path, method="arte", measure=False, diversity={"least_distinct": 0.2}, rationales={"prompts": {}})
    run = open_recipe(path, str(tmp_path / "store"), [], write=True)
    again = find_run(run.recipe.name, str(tmp_path / "store"))
    assert again.graph.nodes["it1.diversity"].settings == run.graph.nodes["it1.diversity"].settings
    gates: Any = again.graph.nodes["it1.diversity"].settings
    assert (gates.least_distinct, gates.most_self_rouge) == (0.2, 1.0)


def test_a_trained_teachers_drafts_are_compared_with_those_before_any_training(tmp_path: Path) -> None:
    found = graph(tmp_path, compare=["self-instruct", "random"], iterations=2).nodes
    compared = {name: node.inputs.get("unmodified") for name, node in found.items() if node.stage == "diversity"}
    drafts = Edge("it1.questions")
    assert compared == {
        "it1.diversity": None, "it2.diversity": drafts, "random.it2.diversity": drafts, "tailored.diversity": drafts,
        "self-instruct.diversity": None, "random.diversity": drafts,
    }  # fmt: skip


def test_the_final_data_have_gates_of_their_own(tmp_path: Path) -> None:
    nodes: Any = graph(tmp_path, diversity={"sample": 100}, fresh={"diversity": {"least_kept": 0.0}}).nodes
    assert (nodes["it1.diversity"].settings.least_kept, nodes["tailored.diversity"].settings.least_kept) == (0.5, 0.0)
    assert nodes["tailored.diversity"].settings.sample == 100
    assert nodes["tailored.diversity"].settings.most_self_rouge == 1.0


def test_the_compared_branch_differs_in_its_teacher_alone_and_both_use_the_naive_prompt(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-instruct"], fresh={"rationales": {"samples": 2}}).nodes
    for stage in DATA:
        assert nodes[f"tailored.{stage}"].settings == nodes[f"self-instruct.{stage}"].settings
    settings: Any = nodes["tailored.rationales"].settings
    assert (settings.style, settings.samples) == ("naive", 2)
    assert nodes["tailored.questions"].inputs["teacher"] == Edge("it1.dpo")
    assert isinstance(nodes["self-instruct.questions"].inputs["teacher"], ModelSource)


def test_other_methods_score_the_same_drafts_and_differ_from_there_on(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-reward", "random", "no-finetuning"], iterations=2).nodes
    assert nodes["self-reward.it1.judge"].inputs["rows"] == Edge("it1.rationales")
    assert isinstance(nodes["self-reward.it1.judge"].inputs["judge"], ModelSource)  # the teacher as it came
    assert nodes["random.it1.random"].inputs == {"rows": Edge("it1.rationales"), "scores": Edge("it1.incontext")}
    assert nodes["random.it2.random"].inputs["scores"] == Edge("it2.incontext")
    for branch, signal in (("self-reward", "judge"), ("random", "random")):
        own = [name.removeprefix(f"{branch}.it1.") for name in nodes if name.startswith(f"{branch}.it1.")]
        assert own == [signal, "preferences", "dpo"]
        assert nodes[f"{branch}.it1.preferences"].settings == nodes["it1.preferences"].settings
        assert nodes[f"{branch}.it2.questions"].inputs["teacher"] == Edge(f"{branch}.it1.dpo")
        assert nodes[f"{branch}.questions"].inputs["teacher"] == Edge(f"{branch}.it2.dpo")
    assert {name for name in nodes["accuracy"].inputs if name.startswith("answers.")} == {
        "answers.base", "answers.tailored", "answers.self-reward", "answers.random",
    }  # fmt: skip


def test_further_signals_on_the_same_drafts_are_for_the_report_alone(tmp_path: Path) -> None:
    nodes = graph(tmp_path, signals=["judge", "random"], compare=["self-reward"]).nodes
    assert nodes["it1.preferences"].inputs["scores"] == Edge("it1.incontext")
    assert nodes["it1.random"].inputs["scores"] == Edge("it1.incontext")
    assert nodes["self-reward.it1.preferences"].inputs["scores"] == Edge("it1.judge")  # computed once


def test_further_students_are_trained_on_the_same_rows_and_asked_the_same_questions(tmp_path: Path) -> None:
    other = {"model": "builtin:smollm2", "drop_layers": [5]}
    nodes = graph(tmp_path, compare=["self-instruct"], transfer={"other": other}, seeds=[1, 2]).nodes
    assert nodes["tailored.sft-other-2"].inputs["rows"] == Edge("tailored.budget")
    replicas = {f"answers.{name}.seed-{seed}" for name in ("tailored", "self-instruct") for seed in (1, 2)}
    assert set(nodes["transfer.other"].inputs) == {"tasks", "answers.base", *replicas}
    assert nodes["transfer.other"].inputs["answers.tailored.seed-1"] == Edge("tailored.answers-other-1")
    untrained = nodes["base.answers-other"].inputs["student"]
    assert isinstance(untrained, ModelSource) and untrained.drop_layers == (5,)
    assert nodes["comparison"].inputs == {"accuracy": Edge("accuracy")}


def test_compared_students_are_trained_on_equal_rows_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-instruct"]).nodes
    assert nodes["self-instruct.sft"].inputs["rows"] == Edge("self-instruct.budget")
    assert set(nodes["tailored.budget"].inputs) == {"own.tailored", "branch.tailored", "branch.self-instruct"}
    assert graph(tmp_path, compare=["self-instruct"]).outputs["dataset"] == "tailored.rationales"
    free = graph(tmp_path, compare=["self-instruct"], budget={"match": "none"}).nodes
    assert free["tailored.sft"].inputs["rows"] == Edge("tailored.rationales")
    more = {"match": "device_seconds", "prompts": {"self-instruct": 90}}
    paid = graph(tmp_path, compare=["self-instruct"], budget=more).nodes
    assert {"before.tailored.it1.incontext", "before.tailored.irt", "final.tailored.tailored.questions"} <= set(
        paid["tailored.budget"].inputs
    )
    assert paid["self-instruct.questions"].settings.prompts == 90  # type: ignore[attr-defined]


def test_the_teachers_training_puts_nothing_behind_the_outputs_of_pairs(tmp_path: Path) -> None:
    assert graph(tmp_path).nodes["it1.dpo"].settings.closing == ""  # type: ignore[attr-defined]


def test_students_of_several_seeds_are_all_asked(tmp_path: Path) -> None:
    nodes = graph(tmp_path, seeds=[1, 2]).nodes
    assert {"answers.base", "answers.tailored.seed-1", "answers.tailored.seed-2", "tasks"} == set(
        nodes["accuracy"].inputs
    )


def test_the_final_data_are_scored_where_the_recipe_measures(tmp_path: Path) -> None:
    found = build(load_recipe(write(tmp_path, method="arte", measure=True)))
    assert found.nodes["tailored.incontext"].inputs["rows"] == Edge("tailored.rationales")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"benchmarks": ["winrate"]}, "the tasks' own test questions"),
        ({"compare": ["llm2llm"]}, "arte cannot be compared with llm2llm: it shows the teacher scored drafts as seeds"),
        ({"compare": ["bootstrap"]}, "arte cannot be compared with bootstrap: it scores by the loss on reference rows"),
        ({"signals": ["judge", "loss"]}, "arte's drafts are scored by judge, random besides, not by loss"),
        ({"iterate_student": "previous"}, "iterate_student: method arte does not read it"),
        ({"panel": {"models": {"My Model": {"model": "builtin:smollm2"}}}}, "lower-case letters"),
        ({"tasks": {"tasks": {"chess": {"rule": "chess"}}}}, "there is no rule 'chess'"),
        ({"incontext": {"reasoning_token": 3}}, "did you mean 'reasoning_tokens'?"),
        ({"run": {"shards": {"irt": 2}}}, "irt cannot be sharded"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refused(write(tmp_path, method="arte", **changes))


def opened(path: Path, folder: Path, *, write: bool = True) -> Any:
    return open_recipe(path, str(folder / "store"), [], write=write).recipe


def test_prompts_are_read_from_the_folder_beside_the_recipe_and_can_be_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, method="arte", rationales={"prompts": "ways"})
    shutil.copytree(RECIPES / "arte-prompts", tmp_path / "ways")
    (tmp_path / "ways" / "default.yaml").write_text("naive: Go.\nreasoning: [Slowly., Quickly.]\n")
    prompts = opened(path, tmp_path).rationales.prompts
    assert prompts["default"].naive == "Go." and prompts["default"].reasoning == ("Slowly.", "Quickly.")
    assert len(prompts["word_sorting"].reasoning) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [("naive: Go.\n", "reasoning: must be given"), ("naive: Go.\nreasonning: [a]\n", "did you mean 'reasoning'?")],
)
def test_prompts_that_are_none_are_refused_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, method="arte", rationales={"prompts": "ways"})
    (tmp_path / "ways").mkdir()
    (tmp_path / "ways" / "default.yaml").write_text(text)
    with pytest.raises(StageError) as caught:
        opened(path, tmp_path)
    assert words in str(caught.value) and "default.yaml" in str(caught.value)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_folder_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="there are no prompts in"):
        opened(write(tmp_path, method="arte", rationales={"prompts": "nowhere"}), tmp_path)


def test_files_of_questions_are_copied_into_the_store_by_content(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"input": "Is 1 odd?", "target": "Yes"}\n')
    source = {"uri": str(tmp_path / "q.jsonl")}
    path = write(
        tmp_path, method="arte", tasks={"tasks": {"odd": {"sources": [source], "kind": "yes_no", "about": "odd"}}}
    )
    found = opened(path, tmp_path).tasks.tasks["odd"].sources[0]
    assert found.uri.startswith("store:inputs/") and found.digest
    assert FileStore(tmp_path / "store").size(found.uri.removeprefix("store:")) is not None
    assert opened(path, tmp_path, write=False).tasks.tasks["odd"].sources[0].digest == found.digest


def test_a_copied_recipe_brings_its_prompts(tmp_path: Path) -> None:
    path = copy_recipe("arte-quickstart", tmp_path / "mine" / "run.yaml")
    assert (path.parent / "arte-prompts" / "word_sorting.yaml").is_file()
    assert "word_sorting" in opened(path, tmp_path).rationales.prompts


def test_a_plan_counts_the_generations_of_the_paper(tmp_path: Path) -> None:
    found = {
        each.node: each
        for each in asked(open_recipe(RECIPES / "arte-gemma-2b.yaml", str(tmp_path), [], write=False).graph)
    }
    assert found["it1.incontext"].calls == 920_000
    assert found["panel.gemma-2b"].calls == 23 * 100 * 4
    assert "base.answers" not in found, "how many test questions there are only the files know"


def test_the_papers_recipe_has_its_tasks_and_values(tmp_path: Path) -> None:
    recipe: Any = load_recipe(RECIPES / "arte-gemma-2b.yaml")
    assert len(recipe.tasks.tasks) == 23
    named = {path.stem for path in (RECIPES / "arte-prompts").glob("*.yaml")}
    assert set(recipe.tasks.tasks) | {"default"} == named
    assert (recipe.select.per_task, recipe.irt.size, recipe.tasks.validation) == (250, 40, 100)
    assert (recipe.questions.examples, recipe.questions.more, recipe.questions.sampling.temperature) == (3, 5, 1.0)
    assert (recipe.preferences.question_pairs, recipe.preferences.rationale_pairs) == (50, 250)
    assert (recipe.dpo.learning_rate, recipe.dpo.batch, recipe.sft.learning_rate) == (1e-7, 16, 2e-5)
    assert len(recipe.panel.models) == 5 and recipe.panel.shots == (0, 1, 2, 3)
    assert (recipe.preferences.quarter, recipe.preferences.optimise) == (0.25, "both")
    assert (recipe.dpo.epochs, recipe.dpo.schedule.kind, recipe.dpo.schedule.warmup) == (1, "cosine", 0.1)
    assert (recipe.sft.epochs, recipe.sft.schedule.kind, recipe.sft.schedule.warmup) == (1, "linear", 0.03)
    assert recipe.answers.shots == (0, 3)
    read = opened(RECIPES / "arte-gemma-2b.yaml", tmp_path).rationales
    assert {ways(read, task) for task in recipe.tasks.tasks} == {4}


def test_a_look_at_the_teacher_on_its_way_that_nothing_would_take_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, method="arte", measure=False, dpo={"checkpoints": 2})
    assert "dpo.checkpoints: method arte looks at its teachers after their training only" in refused(path)
