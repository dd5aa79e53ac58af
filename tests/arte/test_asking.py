"""answers and incontext: what a student is asked, in which order, how short, and what its answers come to."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store
from stages.contract.tables import make_table
from stages.signals.rows import COLUMNS
from stages.tasks.stage import ITEMS, TASKS
from tests.arte.inputs import Row, last_user, preference, rationale_table, rationales, served, tasks
from tests.generation.inputs import LOCAL, REMOTE
from tests.generation.server import Answer, says, serving
from tests.support import model_input, publish, run_stage


def knowing(_: int, body: Row) -> Answer:
    """A student that answers every question rightly."""
    question = last_user(body)
    number = int(re.findall(r"\d+", question)[0])
    return says(("No." if number % 2 else "Yes.") if "even" in question else f" {number + 1}\n")


def asked(store: Store, answer: Any, **settings: Any) -> tuple[Artifact, list[Row]]:
    with serving(answer) as server:
        inputs: dict[str, Any] = {"tasks": tasks(store), "student": REMOTE}
        made = run_stage(store, "answers", {**served(server.url), **settings}, inputs, shards=2)
    return made, server.bodies


def test_every_question_is_asked_after_every_number_of_examples(file_store: Store) -> None:
    made, bodies = asked(file_store, knowing, shots=[0, 3], role="test")
    rows = made.table().to_pylist()
    assert Counter((row["task"], row["shots"]) for row in rows) == {(t, s): 5 for t in ("even", "sum") for s in (0, 3)}
    assert all(row["correct"] for row in rows)
    assert Counter(len(body["messages"]) for body in bodies) == {2: 10, 8: 10}  # the begun answer is one of them
    of_task = [body["messages"][:6] for body in bodies if len(body["messages"]) == 8 and "even" in last_user(body)]
    assert all(each == of_task[0] for each in of_task), "the examples are the same for every question of a task"


def test_a_student_that_answers_at_once_is_granted_a_few_tokens_and_no_randomness(file_store: Store) -> None:
    _, bodies = asked(file_store, knowing, shots=[0])
    assert {body["max_tokens"] for body in bodies} == {6} or max(body["max_tokens"] for body in bodies) <= 6
    assert {body["temperature"] for body in bodies} == {0.0}
    assert all(body["messages"][-1] == {"role": "assistant", "content": "So the answer is"} for body in bodies)
    _, bodies = asked(file_store, knowing, shots=[0], reasoning_tokens=100)
    assert all(body["max_tokens"] > 100 and body["messages"][-1]["role"] == "user" for body in bodies)


def test_what_a_student_without_end_asks_itself_is_no_part_of_its_answer(file_store: Store) -> None:
    def running_on(number: int, body: Row) -> Answer:
        own = knowing(number, body)[1]["choices"][0]["message"]["content"].strip()  # type: ignore[index]
        return says(f"So the answer is {own}\n\nQuestion: Is 3 odd?\nSo the answer is Maybe 99.")

    made, _ = asked(file_store, running_on, shots=[0], reasoning_tokens=100)
    assert all(row["correct"] for row in made.table().to_pylist())


HALVES = {"1": "3.5", "2": "1,234.5"}
LANDS = {"3": "U.S.", "4": "the Isle of Man"}
FORCES = {"5": "the U.S. Army", "6": "the Navy"}


@pytest.mark.parametrize(
    ("kind", "known", "said", "answers"),
    [
        ("number", HALVES, {"1": " 3.5. It is half of 7.", "2": " 1,234.50 dollars. So"}, ["3.5", "1234.5"]),
        ("number", HALVES, {"1": " 1.5 + 2 = 3.5\n", "2": " 2 + 5 ="}, ["3.5", None]),
        ("text", LANDS, {"3": " the U.S. It has", "4": " the Isle of Man. It has"}, ["the u.s", "the isle of man"]),
        ("text", LANDS, {"3": " U.S.", "4": " U.S. It has"}, ["u.s", "u.s"]),
        ("text", FORCES, {"5": " the U.S. Army", "6": " the Navy."}, ["the u.s. army", "the navy"]),
        ("labels", LANDS, {"3": " U.S.", "4": " The Isle of Man. It has"}, ["u.s.", "the isle of man"]),
    ],
)
def test_a_full_stop_inside_an_answer_does_not_end_it(
    file_store: Store, kind: str, known: dict[str, str], said: dict[str, str], answers: list[str | None]
) -> None:
    of_one = {"task": "one", "rationale": "", "role": "test"}
    rows = [{**of_one, "item_id": name, "question": name, "answer": answer} for name, answer in known.items()]
    labels = [*known.values()] if kind == "labels" else []
    about = [{"task": "one", "category": "c", "kind": kind, "about": "one", "labels": labels}]
    inputs: dict[str, Any] = {
        "tasks": publish(
            file_store, "tasks", tables={"items": make_table(rows, ITEMS), "tasks": make_table(about, TASKS)}
        ),
        "student": REMOTE,
    }
    with serving(lambda _, body: says(said[last_user(body)])) as server:
        made = run_stage(file_store, "answers", {**served(server.url), "shots": [0]}, inputs)
    assert [row["answer"] for row in made.table().to_pylist()] == answers


def test_answers_that_never_parse_are_a_figure_and_wrong(file_store: Store) -> None:
    made, _ = asked(file_store, lambda *_: says("Hm?"), shots=[0])
    rows = made.table().to_pylist()
    assert not any(row["correct"] for row in rows) and all(row["answer"] is None for row in rows)
    unparsed: Counter[str] = Counter()
    for shard in made.shards():
        for figures in shard.chunk_figures:
            unparsed.update(figures["unparsed"])
    assert unparsed == {"even": 5, "sum": 5}


def test_more_shots_than_seeds_are_refused_with_the_task(file_store: Store) -> None:
    with pytest.raises(StageError, match="5 shots are asked for, and even has 4 seeds") as caught:
        asked(file_store, knowing, shots=[5])
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_tiny_model_without_a_chat_template_is_asked_in_plain_text(
    file_store: Store, tiny_model: Path, tmp_path: Path
) -> None:
    import shutil

    plain = Path(shutil.copytree(tiny_model, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    for student in (tiny_model, plain):
        inputs: dict[str, Any] = {"tasks": tasks(file_store), "student": model_input(student)}
        made = run_stage(file_store, "answers", {"engine": LOCAL["engine"], "shots": [1]}, inputs)
        assert made.table().num_rows == 10


def scored(store: Store, answer: Any, rows: list[Row] | None = None, **settings: Any) -> tuple[Artifact, list[Row]]:
    with serving(answer) as server:
        inputs: dict[str, Any] = {
            "rows": rationale_table(store, rationales() if rows is None else rows),
            "student": REMOTE,
            "tasks": tasks(store),
            "preference": preference(store),
        }
        made = run_stage(store, "incontext", {**served(server.url), **settings}, inputs, shards=3)
    return made, server.bodies


def test_a_candidate_is_the_one_example_of_every_question_of_its_task(file_store: Store) -> None:
    made, bodies = scored(file_store, knowing)
    assert len(bodies) == 16 * 5
    for body in bodies:
        example, given, question = (each["content"] for each in body["messages"][:3])
        assert given.startswith("Way ") and example.startswith("even" if "even" in question else "sum")
    rows = made.table().to_pylist()
    assert set(COLUMNS.names) <= set(rows[0])
    assert {(row["score"], row["asked"], row["parsed"], row["method"]) for row in rows} == {(1.0, 5, 5, "incontext")}


def test_a_candidates_requests_stand_side_by_side_so_that_its_example_is_computed_once(file_store: Store) -> None:
    _, bodies = scored(file_store, knowing)
    examples = [str(body["messages"][:2]) for body in bodies]
    changes = sum(one != other for one, other in pairwise(examples))
    assert changes == len(set(examples)) - 1


def test_a_score_is_the_share_of_right_answers_with_its_standard_error(file_store: Store) -> None:
    def answer(number: int, body: Row) -> Answer:
        return says("Yes.") if body["messages"][1]["content"].startswith("Way 0") else knowing(number, body)

    made, _ = scored(file_store, answer)
    rows = {row["response_id"]: row for row in made.table().to_pylist()}
    # Of the five chosen questions (numbers 5 to 9) two are even, and "Yes" is no number.
    assert rows["r-even-0-0"]["score"] == pytest.approx(2 / 5)
    assert rows["r-even-0-0"]["stderr"] == pytest.approx((0.3 / 5) ** 0.5)
    assert rows["r-even-0-1"]["score"] == 1.0


def test_a_candidate_after_which_nothing_can_be_parsed_has_no_score_and_never_a_zero(file_store: Store) -> None:
    def answer(number: int, body: Row) -> Answer:
        return says("Hm?") if "even" in last_user(body) else knowing(number, body)

    made, _ = scored(file_store, answer)
    rows = made.table().to_pylist()
    assert {(row["task"], row["score"], row["reason"]) for row in rows} == {
        ("even", None, "no answer could be parsed"),
        ("sum", 1.0, None),
    }
    figures = [each for shard in made.shards() for each in shard.chunk_figures]
    assert sum(each["unscored"] for each in figures) == 8
    assert sum(each["unparsed"] for each in figures) == 40


def test_sharded_and_whole_give_the_same_scores(tmp_path: Path, tiny_model: Path) -> None:
    digests = []
    for shards in (1, 3):
        store = FileStore(tmp_path / str(shards))
        inputs: dict[str, Any] = {
            "rows": rationale_table(store, rationales(2)),
            "student": model_input(tiny_model),
            "tasks": tasks(store),
            "preference": preference(store),
        }
        settings = {"engine": {**LOCAL["engine"], "batch_size": 1}, "chunk_rows": 2}
        digests.append(run_stage(store, "incontext", settings, inputs, shards=shards).manifest.digest)
    assert digests[0] == digests[1]


def test_a_candidate_of_a_task_without_preference_questions_is_named(file_store: Store) -> None:
    inputs: dict[str, Any] = {
        "rows": rationale_table(file_store, rationales()),
        "student": REMOTE,
        "tasks": tasks(file_store),
        "preference": preference(file_store, ("sum",)),
    }
    with pytest.raises(StageError, match="the preference set has no question of even"):
        run_stage(file_store, "incontext", served("http://127.0.0.1:1/v1"), inputs)
