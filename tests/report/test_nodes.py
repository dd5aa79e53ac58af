"""What the report takes a run's nodes for: what is behind a student, what came before the teacher's training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from stages.contract.artifact import Artifact
from stages.report.nodes import Nodes

# node: stage, inputs by name
Graph = dict[str, tuple[str, dict[str, str]]]
COMPARED: Graph = {
    "prepare": ("prepare", {}),
    "it1.dpo": ("dpo", {"pairs": "prepare"}),
    "tailored.responses": ("responses", {"teacher": "it1.dpo"}),
    "self-instruct.responses": ("responses", {"seeds": "prepare"}),
    **{
        f"{name}.budget": (
            "budget",
            {
                f"own.{name}": f"{name}.responses",
                "branch.tailored": "tailored.responses",
                "branch.self-instruct": "self-instruct.responses",
                "before.tailored.it1.dpo": "it1.dpo",
            },
        )
        for name in ("tailored", "self-instruct")
    },
    "tailored.sft": ("sft", {"rows": "tailored.budget"}),
    "self-instruct.sft": ("sft", {"rows": "self-instruct.budget"}),
}
TASKS: Graph = {
    "tasks": ("tasks", {}),
    "it1.preferences": ("preferences", {"rows": "tasks"}),
    "tailored.rationales": ("rationales", {"teacher": "it1.preferences"}),
    "random.it1.preferences": ("preferences", {"rows": "tasks"}),
}


def nodes(graph: Graph) -> Nodes:
    def artifact(stage: str) -> Any:
        return SimpleNamespace(manifest=SimpleNamespace(stage=stage))

    edges = [(source, target, name) for target, (_, inputs) in graph.items() for name, source in inputs.items()]
    made = ((name, cast(Artifact, artifact(stage))) for name, (stage, _) in graph.items())
    return Nodes(made, edges, "tailored")


def test_a_student_pays_for_its_own_data_though_its_budget_saw_all_branches() -> None:
    behind = {
        name: [node.name for node in nodes(COMPARED).upstream(f"{name}.sft")] for name in ("tailored", "self-instruct")
    }
    assert "it1.dpo" in behind["tailored"] and "self-instruct.responses" not in behind["tailored"]
    assert set(behind["self-instruct"]) == {
        "prepare", "self-instruct.responses", "self-instruct.budget", "self-instruct.sft",
    }  # fmt: skip


def test_the_latest_pairs_are_the_main_branch_s_and_not_its_control_s() -> None:
    latest = nodes(TASKS).latest("preferences")
    assert latest is not None and latest.name == "it1.preferences"
