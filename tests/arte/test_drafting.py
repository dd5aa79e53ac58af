"""questions, select, rationales: what is asked of the teacher, what is kept of it, and what stops the run."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.questions.stage import parse_questions
from stages.rationales.settings import RationalesSettings, TaskPrompts
from tests.arte.inputs import Row, last_user, question_table, questions, served, tasks
from tests.generation.inputs import REMOTE
from tests.generation.server import Answer, says, serving
from tests.support import publish, run_stage

WAYS = {"default": {"naive": "Think.", "reasoning": ["Think.", "Count.", "Guess."]}}


def test_questions_are_what_stands_between_tags_and_at_most_as_many_as_asked_for() -> None:
    output = "a?</question>\n<question> b? </question><question></question><question>c?</question><question>d"
    assert parse_questions(output, "x\n<question>", 5) == ["a?", "b?", "c?"]
    assert parse_questions(output, "<question>", 2) == ["a?", "b?"]
    assert parse_questions(output, "", 5) == ["b?", "c?"]
    assert parse_questions("<question>a?</question>", "<question>", 5) == ["a?"]
    assert parse_questions("Sure! Here they are.", "<question>", 5) == []


def drafted(store: Store, answer: Any, **settings: Any) -> tuple[Artifact, list[Row]]:
    with serving(answer) as server:
        chosen = {**served(server.url), "prompts": 3, "examples": 2, "more": 2, "least_parsed": 0, **settings}
        made = run_stage(store, "questions", chosen, {"seeds": tasks(store), "teacher": REMOTE}, shards=2)
    return made, server.bodies


def test_every_prompt_shows_seeds_of_its_task_and_every_question_asked_for_is_a_row(file_store: Store) -> None:
    made, bodies = drafted(file_store, lambda number, _: says(f"New {number}?</question> and no more"))
    rows = made.table().to_pylist()
    assert Counter(row["task"] for row in rows) == {"even": 6, "sum": 6}
    assert Counter(row["reason"] for row in rows) == {None: 6, "not_written": 6}
    assert len({row["instruction_id"] for row in rows}) == 12
    assert len(bodies) == 6
    for row in rows:
        assert len(set(row["seed_ids"])) == 2 and all(
            each.startswith(f"{row['task']}-seed") for each in row["seed_ids"]
        )
        if row["reason"] is None:
            assert row["output"] == f"{row['instruction']}</question>"


def test_a_teacher_that_drafts_nothing_stops_the_run(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"0 of 4 outputs .* are parsed.*4 not_written") as caught:
        drafted(file_store, lambda *_: says("I cannot."), least_parsed=0.2, gate_after=4, chunk_rows=2)
    assert caught.value.code == ExitCode.GATE


def test_too_few_seeds_for_a_prompt_are_said_with_the_task(file_store: Store) -> None:
    with pytest.raises(StageError, match="shows 9 seed questions, and even has 4") as caught:
        drafted(file_store, lambda *_: says("x"), examples=9)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def selected(store: Store, texts: list[str | None], **settings: Any) -> Artifact:
    rows = [
        {
            **questions(1)[number % 2],
            "instruction_id": f"d{number:02}",
            "instruction": text,
            "output": f"{text}</question>",
        }
        for number, text in enumerate(texts)
    ]
    drafts = publish(store, "questions", tables={"rows": pa.Table.from_pylist(rows)})
    return run_stage(store, "select", settings, {"instructions": drafts, "seeds": tasks(store)})


def test_what_repeats_a_draft_or_any_of_the_tasks_own_questions_is_dropped(file_store: Store) -> None:
    # Odd places are `sum`, even ones `even`; a test question of the one task is no question of the other.
    texts = [
        "Is 12  EVEN?",
        "Is 12 even?",
        "Is 99 even?",
        "New sum?",
        "is 99 even?",
        None,
        "Is 4 even?",
        "What is 1 + 1?",
    ]
    made = selected(file_store, texts)
    kept = [row["instruction"] for row in made.table().to_pylist()]
    assert kept == ["Is 12 even?", "Is 99 even?", "New sum?"]
    figures = made.manifest.figures
    assert figures["dropped"] == {
        "test_question": 1, "duplicate": 1, "unparsed": 1, "validation_question": 1, "seed_question": 1
    }  # fmt: skip
    assert figures["short"] == {"even": 249, "sum": 248}


def test_no_more_than_asked_for_are_kept_whatever_the_order(file_store: Store) -> None:
    texts: list[str | None] = [f"Draft {number}?" for number in range(20)]
    kept = {row["instruction"] for row in selected(file_store, texts, per_task=3).table().to_pylist()}
    assert len(kept) == 6


def test_a_task_without_a_new_question_stops_the_run_and_says_why(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"sum has 0 new questions, and 1 are asked for \(1 unparsed\)") as caught:
        selected(file_store, ["New?", None])
    assert caught.value.code == ExitCode.GATE


def answered(store: Store, answer: Any, **settings: Any) -> tuple[Artifact, list[Row]]:
    inputs: dict[str, Any] = {
        "instructions": question_table(store, questions(2)),
        "seeds": tasks(store),
        "teacher": REMOTE,
    }
    with serving(answer) as server:
        chosen = {**served(server.url), "prompts": WAYS, "least_usable": 0, **settings}
        made = run_stage(store, "rationales", chosen, inputs, shards=2)
    return made, server.bodies


def test_each_question_is_answered_once_for_each_reasoning_prompt_and_kept_under_the_naive_one(
    file_store: Store,
) -> None:
    made, bodies = answered(file_store, lambda *_: says("Since so. So the answer is 4, yes."))
    rows = made.table().to_pylist()
    assert len(rows) == 4 * 3
    assert {row["way"] for row in rows} == {"Think.", "Count.", "Guess."}
    assert all("Think." in row["prompt"] and "Count." not in row["prompt"] for row in rows)
    assert sum("Count." in last_user(body) for body in bodies) == 4
    assert {(row["task"], row["answer"]) for row in rows} == {("even", "yes"), ("sum", "4")}
    assert len({row["response_id"] for row in rows}) == 12 and all(row["usable"] for row in rows)


def test_the_students_data_use_the_naive_prompt_alone(file_store: Store) -> None:
    made, bodies = answered(file_store, lambda *_: says("So the answer is 4, yes."), style="naive", samples=2)
    assert made.table().num_rows == 8
    assert all(last_user(body).partition("\n\n")[2].startswith("Think.") for body in bodies)


def test_a_begun_answer_is_part_of_the_response_and_shots_come_before_the_question(file_store: Store) -> None:
    made, bodies = answered(
        file_store, lambda *_: says(" So the answer is 4, yes."), prefill="Well:", shots=2, system="Be brief."
    )
    assert all(
        row["response"].startswith("Well: So") and row["output"].startswith(" So") for row in made.table().to_pylist()
    )
    assert [each["role"] for each in bodies[0]["messages"]] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant"
    ]  # fmt: skip


def test_rationales_without_an_answer_are_rows_with_the_reason(file_store: Store) -> None:
    def answer(number: int, _: Row) -> Answer:
        return says("I do not know.") if number % 2 else says("So the answer is 4, yes.")

    made, _ = answered(file_store, answer)
    assert Counter(row["reason"] for row in made.table().to_pylist()) == {None: 6, "no_answer": 6}
    assert all(row["usable"] == (row["reason"] is None) for row in made.table().to_pylist())


def test_a_task_whose_answers_never_parse_stops_at_the_gate_with_the_figure(file_store: Store) -> None:
    with pytest.raises(StageError, match=r"0 of 6 outputs .* are usable.*6 no_answer") as caught:
        answered(file_store, lambda *_: says("Hm."), least_usable=0.2, gate_after=4, chunk_rows=2)
    assert caught.value.code == ExitCode.GATE


def test_a_task_without_prompts_is_named(file_store: Store) -> None:
    with pytest.raises(StageError, match="sum has no reasoning prompts") as caught:
        answered(file_store, lambda *_: says("x"), prompts={"even": WAYS["default"]})
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_folder_that_nobody_read_is_refused(file_store: Store) -> None:
    with pytest.raises(StageError, match="the folder 'ways' was not read") as caught:
        answered(file_store, lambda *_: says("x"), prompts="ways")
    assert caught.value.code == ExitCode.BAD_SETTINGS


@pytest.mark.parametrize("reasoning", [[], ["a", "a"], [" "]])
def test_reasoning_prompts_are_different_texts(reasoning: list[str]) -> None:
    with pytest.raises(ValueError, match="reasoning"):
        TaskPrompts.model_validate({"reasoning": reasoning})


def test_the_default_prompts_are_four_with_the_naive_one_among_them() -> None:
    prompts = RationalesSettings().of_task("anything")
    assert prompts is not None and len(prompts.reasoning) == 4 and prompts.naive in prompts.reasoning
