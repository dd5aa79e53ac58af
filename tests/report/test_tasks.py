"""The report of an ARTE run: its tasks, its preference set, its scores, and no stronger words than intervals allow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from stages.contract.artifact import Artifact
from stages.contract.store import Store
from stages.report.sections.tasks import few_questions, one_answer, unfitted, without_pairs
from tests.arte.inputs import answered, question_table, questions, rationale_table, rationales, tasks
from tests.support import artifact_input, publish, run_stage


def test_a_preference_set_with_one_answer_is_said_to_be_one() -> None:
    figures = {"tasks": {"even": {"one_answer": "Yes"}, "sum": {"one_answer": None}}}
    (text,) = one_answer(SimpleNamespace(figures=figures))  # type: ignore[arg-type]
    assert "Every preference question of even has the answer 'Yes'" in text


def test_a_task_that_gave_too_little_is_said_to() -> None:
    fits = {"tasks": {"even": {"converged": False}, "sum": {"converged": True}}}
    (text,) = unfitted(SimpleNamespace(figures=fits))  # type: ignore[arg-type]
    assert "did not converge for even:" in text
    kept = {"tasks": {"even": 3, "sum": 5}, "short": {"even": 2}}
    (text,) = few_questions(SimpleNamespace(name="it1.select", figures=kept))  # type: ignore[arg-type]
    assert text == "it1.select: fewer new questions than asked for: even (2 short of 5)."
    pairs = {
        "tasks": {"even": {"question": 0, "rationale": 0}, "sum": {"question": 0, "rationale": 3}},
        "without": {"question_fewer_than_two_scored": 1, "rationale_equal_scores": 4},
    }
    first, second = without_pairs(SimpleNamespace(name="it1.preferences", figures=pairs))  # type: ignore[arg-type]
    assert first == "it1.preferences: no pair at all of even, so the teacher learnt nothing of it."
    assert second == "it1.preferences: without a pair: 1 question fewer than two scored, 4 rationale equal scores."


def reported(store: Store) -> Artifact:
    """A made-up ARTE run of two students, one of them trained twice, and a round's scores."""
    own = tasks(store)
    panel = {
        f"answers.{name}": answered(store, right, role="validation", shots=(0, 1))
        for name, right in (("a", lambda item, _: item[-1] in "468"), ("b", lambda item, shots: bool(shots)))
    }
    chosen = run_stage(store, "irt", {"size": 5}, {"tasks": own, **panel})
    students = {
        f"answers.{name}": answered(store, right, role="test", shots=(0, 3))
        for name, right in (
            ("base", lambda *_: None),
            ("tailored.seed-1", lambda *_: True),
            ("tailored.seed-2", lambda *_: True),
            ("self-instruct", lambda *_: None),
        )
    }
    accuracy = run_stage(store, "accuracy", {}, {"tasks": own, **students})
    comparison = run_stage(store, "comparison", {"baseline": "self-instruct"}, {"accuracy": artifact_input(accuracy)})
    rows = rationale_table(store, rationales())
    scores = _scores(store)
    pairs = run_stage(
        store, "preferences", {}, {"scores": scores, "rows": rows, "questions": question_table(store, questions())}
    )
    nodes = {
        "tasks": own,
        "irt": artifact_input(chosen),
        "it1.rationales": rows,
        "it1.incontext": scores,
        "it1.preferences": artifact_input(pairs),
        "tailored.rationales": rationale_table(store, rationales()),
        "self-instruct.rationales": rationale_table(store, rationales()[:6]),
        "tailored.diversity": artifact_input(
            run_stage(
                store,
                "diversity",
                {},
                {
                    "instructions": question_table(store, [{**row, "instruction": "What?"} for row in questions()]),
                    "rows": rows,
                    "unmodified": question_table(store, questions()),
                },
            )
        ),
        "accuracy": artifact_input(accuracy),
        "comparison": artifact_input(comparison),
        "transfer.wide": artifact_input(run_stage(store, "accuracy", {"resamples": 200}, {"tasks": own, **students})),
    }
    edges = [["it1.rationales", "it1.incontext", "rows"], ["it1.incontext", "it1.preferences", "scores"]]
    for name, replica in (("base", ""), ("tailored", ".seed-1"), ("tailored", ".seed-2"), ("self-instruct", "")):
        answers = f"{name}.answers{replica.replace('.seed', '')}"
        nodes[answers] = students[f"answers.{name}{replica}"]
        edges.append([answers, "accuracy", f"answers.{name}{replica}"])
        if name != "base":
            trained = f"{name}.sft{replica.replace('.seed', '')}"
            nodes[trained] = publish(store, "sft", tables={"rows": pa.table({"row_id": ["a"]})})
            edges += [[trained, answers, "student"], [f"{name}.rationales", trained, "rows"]]
    settings: dict[str, Any] = {"title": "ARTE", "run": "arte", "edges": edges, "baseline": "self-instruct"}
    return run_stage(store, "report", settings, {f"node.{name}": each for name, each in nodes.items()})


def _scores(store: Store) -> Any:
    rows = [
        {
            "response_id": row["response_id"],
            "instruction_id": row["instruction_id"],
            "prompt_id": row["prompt_id"],
            "method": "incontext",
            "score": None if number == 3 else (number % 5) / 5,
            "stderr": 0.1,
            "noise": None,
            "tie": False,
            "tokens": 20,
            "reason": "no answer could be parsed" if number == 3 else None,
            "task": row["task"],
            "asked": 5,
            "parsed": 5,
            "correct": number % 5,
            "characters": 20 + number,
        }
        for number, row in enumerate(rationales())
    ]
    return publish(store, "incontext", tables={"rows": pa.Table.from_pylist(rows)})


def page(made: Artifact, folder: Path) -> str:
    return (made.folder(folder) / "report.html").read_text()


def test_the_page_tells_of_tasks_accuracy_scores_and_pairs(file_store: Store, tmp_path: Path) -> None:
    html = page(reported(file_store), tmp_path)
    for words in (
        "The tasks", "Right answers by task and category", "Preference set: the most discriminative",
        "In-context scores",
        "Score by length of the rationale", "1 no answer could be parsed", "tailored against base after 0 examples",
        "gives more right answers than one trained on the self-instruct data", "0-shot accuracy",
        "as its one example", "chosen, score +", "What the teacher wrote, before duplicates are taken out",
        "Pairs by task", "it1, rationale pairs",
        "self-instruct.rationales against tailored.rationales",
        "Questions of trained teachers: the distinct ones and distinct-2", "0 % (even)",
        "Right answers after 0 examples of each student against its cost",
    ):  # fmt: skip
        assert words in html, words
    assert "Rows that share a run of words" not in html, "nothing was compared"
    section = html.partition('id="tasks"')[2].partition("</section>")[0]
    assert "tailored, 3-shot" in section and "seed-1" not in section, "a student is its replicas' mean"


def test_further_students_of_tasks_are_compared_with_themselves(file_store: Store, tmp_path: Path) -> None:
    html = page(reported(file_store), tmp_path)
    assert "Other students on the same data" in html
    assert "wide: tailored against self-instruct after 3 examples" in html


def test_what_could_not_be_read_stands_beside_the_share(file_store: Store, tmp_path: Path) -> None:
    assert "0 % (10)" in page(reported(file_store), tmp_path)
