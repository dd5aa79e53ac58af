"""The stage `diversity`: its figures, its table, and each gate with the figure that closed it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from tests.support import publish, run_stage

QUESTIONS = pa.schema([("turns", pa.list_(pa.string())), ("references", pa.list_(pa.string()))])
HELDOUT = "Explain how a steam engine turns heat into motion, step by step."
PROBE = "List the planets of the solar system from the largest to the smallest."
COLLAPSED = [f"Write a short poem about the sea and the wind, number {number}." for number in range(40)]


def varied(count: int = 40) -> list[str]:
    return [" ".join(f"w{(7 * number + 13 * place * place) % 997}" for place in range(9)) for number in range(count)]


def checked(
    store: Store,
    texts: list[str | None],
    evaluation: dict[str, list[str]] | None = None,
    *,
    reference: bool = True,
    responses: list[str] | None = None,
    **settings: Any,
) -> Artifact:
    written = [{"instruction_id": f"i-{number:03}", "instruction": text} for number, text in enumerate(texts)]
    rows = [
        {"response_id": f"r-{number:03}", "instruction": text, "response": answer, "usable": number != 0}
        for number, (text, answer) in enumerate(zip(texts, responses or varied(len(texts)), strict=True))
        if text is not None
    ]
    inputs = {
        "instructions": publish(store, "instructions", tables={"rows": pa.Table.from_pylist(written)}),
        "rows": publish(store, "responses", tables={"rows": pa.Table.from_pylist(rows)}),
    }
    if reference:
        inputs["reference"] = publish(
            store,
            "prepare",
            tables={
                "heldout": pa.Table.from_pylist([{"instruction": HELDOUT, "response": "Steam pushes a piston."}]),
                "probe": pa.Table.from_pylist([{"instruction": PROBE, "response": "Jupiter comes first."}]),
            },
        )
    for name, questions in (evaluation or {}).items():
        table = pa.Table.from_pylist([{"turns": [text], "references": None} for text in questions], schema=QUESTIONS)
        inputs[f"evaluation.{name}"] = publish(store, "evalset", tables={"rows": table})
    return run_stage(store, "diversity", settings, inputs)


def stopped(
    store: Store, texts: list[str | None], evaluation: dict[str, list[str]] | None = None, **settings: Any
) -> str:
    with pytest.raises(StageError) as caught:
        checked(store, texts, evaluation, **settings)
    assert caught.value.code == ExitCode.GATE
    return str(caught.value)


def test_varied_data_pass_every_gate_and_leave_their_figures(file_store: Store) -> None:
    found = checked(file_store, [*varied(), None])
    figures = found.manifest.figures
    assert (figures["texts"], figures["rows"], figures["contaminated"]) == (40, 39, 0)
    assert figures["distinct"]["2"] > 0.5 and figures["clusters"] > 30
    assert found.table("contaminated").num_rows == 0


def test_each_gate_names_its_figure_and_its_setting(file_store: Store) -> None:
    assert "diversity.least_distinct: the teacher's instructions are too alike" in stopped(file_store, [*COLLAPSED])
    text = stopped(file_store, [*COLLAPSED], least_distinct=0.0)
    assert "diversity.most_self_rouge" in text and "ROUGE-L of 0.9" in text
    text = stopped(file_store, [*COLLAPSED], least_distinct=0.0, most_self_rouge=1.0)
    assert "diversity.most_in_one_cluster" in text and "one cluster holds 100%" in text
    off = {"least_distinct": 0.0, "most_self_rouge": 1.0, "most_in_one_cluster": 1.0}
    assert checked(file_store, [*COLLAPSED], **off).manifest.figures["largest_cluster"] == 1


def test_responses_that_are_too_alike_are_a_collapse_of_their_own(file_store: Store) -> None:
    texts: list[str | None] = [*varied()]
    text = stopped(file_store, texts, responses=["It is so."] * len(texts))
    assert "diversity.least_distinct: the teacher's responses are too alike" in text
    # What comes behind the beginning, and several answers to one question, say nothing of it.
    tails = [f"{answer} {'and so on ' * 50}" for answer in varied()]
    figures = checked(file_store, texts, responses=tails, response_words=9).manifest.figures
    assert figures["responses"]["distinct"]["2"] > 0.5 and figures["responses"]["texts"] == 39
    same: list[str | None] = ["Name a bird that sings."] * 40
    off = {"least_distinct": 0.0, "most_self_rouge": 1.0, "most_in_one_cluster": 1.0}
    assert checked(file_store, same, **off).manifest.figures["responses"]["texts"] == 1


def test_few_texts_are_measured_and_not_judged(file_store: Store) -> None:
    assert checked(file_store, [*COLLAPSED[:10]]).manifest.figures["self_rouge"] > 0.8


def test_a_row_of_the_heldout_half_stops_the_run(file_store: Store) -> None:
    texts: list[str | None] = [*varied(20), HELDOUT, f"Please: {HELDOUT}"]
    assert "diversity.most_contaminated: 9.5% of 21 rows share 8 words" in stopped(file_store, texts)
    found = checked(file_store, texts, most_contaminated=0.1)
    assert found.manifest.figures["contaminated"] == 2
    first = found.table("contaminated").to_pylist()[0]
    assert (first["column"], first["evaluation"]) == ("instruction", "reference heldout")
    assert first["run"].startswith("explain how a steam engine")


def test_likeness_to_the_probe_half_is_told_and_stops_nothing(file_store: Store) -> None:
    figures = checked(file_store, [*varied(20), PROBE], most_contaminated=0.0).manifest.figures
    assert (figures["contaminated"], figures["like_probe"]) == (0, 1)


TIDES = "What would happen to the tides if the moon were twice as far away?"


def test_every_evaluation_set_is_compared_and_counted_by_itself(file_store: Store) -> None:
    evaluation = {"winrate": [TIDES], "mtbench": [f"Think. {TIDES}", HELDOUT]}
    texts: list[str | None] = [*varied(60), TIDES, HELDOUT]
    found = checked(file_store, texts, evaluation)
    by_set = {"reference heldout": 1, "reference probe": 0, "mtbench": 2, "winrate": 1}
    assert found.manifest.figures["contaminated_by"] == by_set
    assert found.manifest.figures["contaminated"] == 2  # a row that is like two sets is one row
    assert {row["evaluation"] for row in found.table("contaminated").to_pylist()} == by_set.keys() - {"reference probe"}


def test_of_tasks_the_questions_of_the_test_are_compared(file_store: Store) -> None:
    written = [{"instruction_id": f"i-{number}", "instruction": text} for number, text in enumerate((TIDES, HELDOUT))]
    rows = [{"response_id": "r", "instruction": TIDES, "response": HELDOUT, "usable": True}]
    items = [{"item_id": "t", "role": "test", "question": TIDES}, {"item_id": "s", "role": "seed", "question": HELDOUT}]
    inputs = {
        "instructions": publish(file_store, "questions", tables={"rows": pa.Table.from_pylist(written)}),
        "rows": publish(file_store, "rationales", tables={"rows": pa.Table.from_pylist(rows)}),
        "evaluation.tasks": publish(file_store, "tasks", tables={"items": pa.Table.from_pylist(items)}),
    }
    found = run_stage(file_store, "diversity", {"most_in_evaluation": 1.0}, inputs)
    assert [(row["evaluation"], row["column"]) for row in found.table("contaminated").to_pylist()] == [
        ("tasks", "instruction")
    ]


OFF = {"least_distinct": 0.0, "most_self_rouge": 1.0, "most_in_one_cluster": 1.0}


def trained(store: Store, now: dict[str, list[str]], then: dict[str, list[str]], **settings: Any) -> Artifact:
    """The check of what a trained teacher drafted by task, against what it drafted before."""
    written = {
        name: publish(
            store,
            "questions",
            tables={
                "rows": pa.Table.from_pylist(
                    [
                        {"instruction_id": f"{name}-{task}-{number}", "task": task, "instruction": text}
                        for task, texts in by_task.items()
                        for number, text in enumerate(texts)
                    ]
                )
            },
        )
        for name, by_task in (("instructions", now), ("unmodified", then))
    }
    rows = [{"response_id": "r", "instruction": "a", "response": "b", "usable": True}]
    inputs = {**written, "rows": publish(store, "rationales", tables={"rows": pa.Table.from_pylist(rows)})}
    return run_stage(store, "diversity", {**OFF, **settings}, inputs)


def test_a_trained_teachers_questions_are_compared_with_as_many_of_the_unmodified_one(file_store: Store) -> None:
    alike = [f"What is {number} + 1?" for number in range(80)]  # as a task's questions are
    figures = trained(file_store, {"sum": alike[:40], "even": varied()}, {"sum": alike, "even": varied()})
    kept = figures.manifest.figures["kept"]
    assert {task: each["texts"] for task, each in kept.items()} == {"all tasks": 80, "even": 40, "sum": 40}
    assert kept["sum"]["distinct_texts"] == kept["even"]["distinct_pairs"] == 1
    assert "kept" not in checked(file_store, [*varied()]).manifest.figures


def test_a_teacher_whose_training_left_it_one_question_of_a_task_stops_the_run(file_store: Store) -> None:
    then = {"sum": [f"What is {number} + 1?" for number in range(40)], "even": varied()}
    collapsed = {"sum": ["What is 3 + 1?"] * 40, "even": varied()}
    with pytest.raises(StageError) as caught:
        trained(file_store, collapsed, then)
    assert caught.value.code == ExitCode.GATE
    text = "diversity.least_kept: the teacher's questions are too alike: of sum, 40 of each, 2% as many questions"
    assert text in str(caught.value)
    trained(file_store, collapsed, then, least_kept=0.0)
    # Too few of one task to judge it, and enough of all together.
    few = {task: ["What is 3 + 1?"] * 20 for task in then}
    with pytest.raises(StageError, match="of all tasks, 40 of each"):
        trained(file_store, few, then)
    trained(file_store, few, then, gate_after=41)


def test_each_evaluation_set_has_the_gate_and_is_named(file_store: Store) -> None:
    texts: list[str | None] = [*varied(20), TIDES, f"Now. {TIDES}"]
    text = stopped(file_store, texts, evaluation={"mtbench": [TIDES]})
    assert "diversity.most_in_evaluation: 9.5% of 21 rows share 8 words in a row with a question of mtbench" in text
    checked(file_store, texts, {"mtbench": [TIDES]}, most_in_evaluation=0.1)


def test_without_reference_rows_variety_is_measured_and_judged(file_store: Store) -> None:
    figures = checked(file_store, [*varied(), HELDOUT], reference=False).manifest.figures
    assert figures["self_rouge"] < 0.5 and figures["contaminated_by"] == {} and figures["contaminated"] == 0
    assert "diversity.least_distinct" in stopped(file_store, COLLAPSED, reference=False)


def test_the_same_sample_is_drawn_whatever_the_order(file_store: Store) -> None:
    figures = checked(file_store, [*varied(60)], sample=20).manifest.figures
    assert figures["texts"] == 20
