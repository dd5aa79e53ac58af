"""The graph of a recipe: which nodes there are, what they are made from, what is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flow.asked import asked
from flow.graph import Edge, Graph, build
from flow.graph.builder import Builder
from flow.recipe import RecipeBase, load_recipe
from flow.sources import upload_recipe
from stages.contract.catalog import spec
from stages.contract.errors import StageError
from stages.contract.fingerprint import fingerprint
from stages.contract.store import FileStore
from stages.models.settings import ModelSource
from tests.flow.test_recipe import write

LOOP = ["instructions", "curate", "responses", "diversity", "warmup", "audit", "influence", "aggregate", "pairs", "dpo"]
DATA = ["instructions", "curate", "responses", "diversity", "influence", "sft"]


def graph(folder: Path, **changes: Any) -> Graph:
    return build(load_recipe(write(folder, **changes)))


def test_one_iteration_is_the_papers_loop(tmp_path: Path) -> None:
    names = list(graph(tmp_path).nodes)
    expected = ["prepare", *(f"it1.{each}" for each in LOOP), *(f"tailored.{each}" for each in DATA)]
    assert names == [*expected, "evaluate", "comparison", "report"]


def test_every_node_comes_after_what_it_needs_and_has_what_its_stage_asks_for(tmp_path: Path) -> None:
    found = graph(tmp_path, iterations=3, compare=["self-instruct"])
    seen: set[str] = set()
    for node in found.nodes.values():
        assert set(node.needs) <= seen
        seen.add(node.name)
        declared = spec(node.stage)
        for wanted in declared.inputs:
            prefix = wanted.removesuffix("*")
            assert any(name == wanted or (wanted.endswith("*") and name.startswith(prefix)) for name in node.inputs)
        assert isinstance(node.settings, declared.settings)
    assert set(found.outputs.values()) <= seen


def test_an_iteration_starts_from_the_teacher_of_the_one_before(tmp_path: Path) -> None:
    nodes = graph(tmp_path, iterations=2).nodes
    assert nodes["it2.instructions"].inputs["teacher"] == Edge("it1.dpo")
    assert nodes["it2.dpo"].inputs["teacher"] == Edge("it1.dpo")
    assert nodes["it2.instructions"].inputs["previous"] == Edge("it1.curate")
    assert nodes["tailored.instructions"].inputs["teacher"] == Edge("it2.dpo")


def test_where_an_iteration_starts_is_in_what_it_makes(tmp_path: Path) -> None:
    """Teacher and student, base or previous: nothing that is made from another start has the same inputs."""
    starts = [("previous", "base"), ("base", "base"), ("previous", "previous")]
    made = [
        graph(tmp_path, iterations=2, iterate_teacher=teacher, iterate_student=student).nodes
        for teacher, student in starts
    ]
    trained = [(nodes["it2.dpo"].inputs["teacher"], nodes["it2.warmup"].inputs["student"]) for nodes in made]
    assert len({str(each) for each in trained}) == 3
    # An input is in the fingerprint by its digest (stages/contract/fingerprint.py), a model by what it is.
    outside, edge = trained[1][0], trained[0][0]
    assert isinstance(outside, ModelSource) and edge == Edge("it1.dpo")


@pytest.mark.parametrize(
    "seeds", ["builtin:seeds", [{"uri": "builtin:reference", "limit": 20}], [{"uri": "builtin:turns", "limit": 5}]]
)
def test_seeds_in_domain_out_of_domain_or_of_the_test_are_a_setting(tmp_path: Path, seeds: Any) -> None:
    """The paper's ablation: only what `prepare` reads changes, and with it everything that is made from seeds."""
    listed = seeds if isinstance(seeds, list) else [{"uri": seeds}]
    nodes = graph(tmp_path, prepare={"seeds": listed[0], "overlap": "keep"}).nodes
    usual = graph(tmp_path).nodes
    assert nodes["prepare"].settings.seeds.uri == listed[0]["uri"]  # type: ignore[attr-defined]
    assert {name for name in nodes if nodes[name].settings != usual[name].settings} == {"prepare", "report"}


def test_two_nodes_of_one_name_are_refused(tmp_path: Path) -> None:
    builder = Builder(load_recipe(write(tmp_path)))
    builder.add("prepare", "prepare", {})
    with pytest.raises(StageError, match="two nodes would be called 'prepare'"):
        builder.add("prepare", "prepare", {})


def test_dpo_can_start_from_the_base_teacher_each_time(tmp_path: Path) -> None:
    nodes = graph(tmp_path, iterations=2, iterate_teacher="base").nodes
    assert isinstance(nodes["it2.dpo"].inputs["teacher"], ModelSource)
    assert nodes["it2.instructions"].inputs["teacher"] == Edge("it1.dpo")


def test_a_compared_branch_differs_in_its_teacher_alone(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-instruct"]).nodes
    for stage in DATA:
        ours, theirs = nodes[f"tailored.{stage}"], nodes[f"self-instruct.{stage}"]
        assert ours.settings == theirs.settings
    assert isinstance(nodes["self-instruct.responses"].inputs["teacher"], ModelSource)
    assert set(nodes["evaluate"].inputs) == {"student.base", "student.tailored", "student.self-instruct", "reference"}


def test_the_final_data_are_all_for_training(tmp_path: Path) -> None:
    assert graph(tmp_path).nodes["tailored.curate"].settings.role == "train"  # type: ignore[attr-defined]


def test_the_baseline_recipe_probes_nothing(tmp_path: Path) -> None:
    found = graph(tmp_path, method="self-instruct")
    assert list(found.nodes) == [
        "prepare", "self-instruct.instructions", "self-instruct.curate", "self-instruct.responses",
        "self-instruct.diversity", "self-instruct.sft", "evaluate", "comparison", "report",
    ]  # fmt: skip
    assert "teacher" not in found.outputs


def test_an_audit_of_size_0_is_left_out(tmp_path: Path) -> None:
    found = graph(tmp_path, audit={"size": 0})
    assert "it1.audit" not in found.nodes
    assert "audit" not in found.nodes["it1.influence"].inputs


def test_the_audit_probes_as_influence_does(tmp_path: Path) -> None:
    settings = graph(tmp_path, influence={"lr": 1e-4, "max_tokens": 99}).nodes["it1.audit"].settings
    assert (settings.lr, settings.max_tokens) == (1e-4, 99)  # type: ignore[attr-defined]


def test_downstream_is_all_that_is_made_from_a_node(tmp_path: Path) -> None:
    found = graph(tmp_path).downstream("it1.pairs")
    assert found[:2] == ("it1.pairs", "it1.dpo")
    assert "tailored.sft" in found and "report" in found and "it1.influence" not in found


def test_seeds_train_replicas_of_every_branch_and_all_are_evaluated(tmp_path: Path) -> None:
    found = graph(tmp_path, compare=["self-instruct"], seeds=[1, 2])
    assert [name for name in found.nodes if ".sft" in name] == [
        "tailored.sft-1", "tailored.sft-2", "self-instruct.sft-1", "self-instruct.sft-2",
    ]  # fmt: skip
    assert found.nodes["tailored.sft-2"].settings.seed == 2  # type: ignore[attr-defined]
    assert found.nodes["evaluate"].inputs["student.self-instruct.seed-2"] == Edge("self-instruct.sft-2")
    assert found.outputs["student"] == "tailored.sft-1"


def test_a_judged_benchmark_asks_every_student_and_compares_with_the_first_sibling(tmp_path: Path) -> None:
    found = graph(tmp_path, compare=["self-instruct"], benchmarks=["winrate"])
    judge = found.nodes["winrate.judge"]
    assert set(judge.inputs) == {"replies.base", "replies.tailored", "replies.self-instruct", "judge"}
    assert judge.settings.baseline == "self-instruct"  # type: ignore[attr-defined]
    assert found.nodes["winrate.replies-tailored"].inputs["model"] == Edge("tailored.sft")
    assert found.nodes["comparison"].inputs == {"losses": Edge("evaluate"), "winrate": Edge("winrate.judge")}


def test_data_are_compared_with_the_questions_that_students_will_be_asked(tmp_path: Path) -> None:
    source = {"uri": "hf:org/questions"}
    found = graph(
        tmp_path, compare=["self-instruct"], benchmarks=["winrate", "mtbench", "harness"], evalset={"winrate": source}
    )
    checks = [node for node in found.nodes.values() if node.stage == "diversity"]
    assert [node.name for node in checks] == ["it1.diversity", "tailored.diversity", "self-instruct.diversity"]
    for node in checks:
        assert node.inputs["evaluation.winrate"] == Edge("winrate.evalset")
        assert node.inputs["evaluation.mtbench"] == Edge("mtbench.evalset")
        assert node.inputs["evaluation.harness"] == Edge("harness.evalset")
    order = list(found.nodes)
    assert order.index("winrate.evalset") < order.index("it1.diversity")


def test_without_questions_of_its_own_a_win_rate_asks_the_held_out_rows_which_are_compared_anyway(
    tmp_path: Path,
) -> None:
    nodes = graph(tmp_path, benchmarks=["winrate"]).nodes
    assert set(nodes["it1.diversity"].inputs) == {"instructions", "rows", "reference"}


def test_without_a_judge_model_the_teacher_judges(tmp_path: Path) -> None:
    other = {"model": "org/judge"}
    own = graph(tmp_path, benchmarks=["winrate"]).nodes["winrate.judge"].inputs["judge"]
    named = graph(tmp_path, benchmarks=["winrate"], judge_model=other).nodes["winrate.judge"].inputs["judge"]
    assert isinstance(own, ModelSource) and isinstance(named, ModelSource)
    assert own.model != "org/judge" and named.model == "org/judge"


def test_checkpoints_of_the_last_teacher_get_data_and_a_student_each(tmp_path: Path) -> None:
    found = graph(tmp_path, iterations=2, compare=["self-instruct"], dpo={"checkpoints": 2})
    teacher = found.nodes["checkpoint-2.responses"].inputs["teacher"]
    assert teacher == Edge("it2.dpo", folder="checkpoint-2")
    assert found.nodes["checkpoint-1.sft"].inputs["rows"] == Edge("checkpoint-1.budget")
    assert "student.checkpoint-1" in found.nodes["evaluate"].inputs
    assert found.nodes["comparison"].settings.left_out == ("checkpoint-1", "checkpoint-2")  # type: ignore[attr-defined]
    # Nobody looks at an earlier teacher's checkpoints.
    published = {name: node.settings.checkpoints for name, node in found.nodes.items() if node.stage == "dpo"}  # type: ignore[attr-defined]
    assert published == {"it1.dpo": 0, "it2.dpo": 2}


def test_a_checkpoint_s_student_gets_no_more_than_the_branches_which_are_not_cut_for_it(tmp_path: Path) -> None:
    nodes = graph(tmp_path, compare=["self-instruct"], dpo={"checkpoints": 1}, budget={"least_rows": 5}).nodes
    own = Edge("checkpoint-1.responses")
    assert nodes["checkpoint-1.budget"].inputs == {
        "own.checkpoint-1": own,
        "branch.checkpoint-1": own,
        "branch.tailored": Edge("tailored.responses"),
        "branch.self-instruct": Edge("self-instruct.responses"),
    }
    assert nodes["checkpoint-1.budget"].settings.least_rows == 1  # type: ignore[attr-defined]
    assert "branch.checkpoint-1" not in nodes["tailored.budget"].inputs
    assert nodes["tailored.budget"].settings.least_rows == 5  # type: ignore[attr-defined]


def test_a_checkpoint_s_data_have_costs_of_their_own(tmp_path: Path) -> None:
    budget = {"match": "device_seconds"}
    found = graph(tmp_path, compare=["self-instruct"], dpo={"checkpoints": 1}, budget=budget)
    inputs = found.nodes["checkpoint-1.budget"].inputs
    assert inputs["final.checkpoint-1.checkpoint-1.responses"] == Edge("checkpoint-1.responses")
    assert {"before.checkpoint-1.it1.dpo", "before.tailored.it1.dpo"} <= set(inputs)


def test_a_plan_counts_replies_and_judgements(tmp_path: Path) -> None:
    found = graph(tmp_path, compare=["self-instruct"], seeds=[1, 2], benchmarks=["winrate", "mtbench", "harness"])
    counted = {each.node: each.calls for each in asked(found)}
    assert counted["winrate.replies-tailored-seed-1"] == 40  # half of the 80 bundled reference rows
    assert counted["winrate.judge"] == 3 * 40 * 2  # the untrained student and two replicas, in both orders
    assert counted["mtbench.judge"] == 5 * 8 * 2
    assert counted["harness"] == 5 * 24 * 4  # the bundled task's rows, each with four choices


def test_a_plan_does_not_guess_how_many_documents_a_task_of_lm_eval_has(tmp_path: Path) -> None:
    def calls(**settings: object) -> list[int]:
        found = graph(tmp_path, benchmarks=["harness"], harness=settings)
        return [each.calls for each in asked(found) if each.node == "harness"]

    students = 2  # the untrained one and that of tailored data
    assert calls(tasks=["arc_easy", "montessori_choices"], limit=100) == []  # a group's limit is each task's
    assert calls(tasks=["montessori_choices"], limit=10) == [students * 10 * 4]


def test_a_report_is_one_wherever_its_models_lie(tmp_path: Path) -> None:
    model = tmp_path / "models" / "teacher"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    here = load_recipe(write(tmp_path, teacher={"model": str(model)}))
    copied = upload_recipe(here, FileStore(tmp_path / "store"), "recipe.yaml")
    assert copied.teacher != here.teacher
    other = load_recipe(write(tmp_path, teacher={"model": str(model)}, about="something else"))
    marks = [_mark(each) for each in (here, copied, other)]
    assert marks[0] == marks[1] != marks[2]


def _mark(recipe: RecipeBase) -> str:
    settings = build(recipe).nodes["report"].settings
    return fingerprint(spec("report"), settings, {})
