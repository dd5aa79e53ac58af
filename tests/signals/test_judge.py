"""The stage `judge` against a real HTTP server: averaged ratings, kept answers, and judges that do not do as asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import FileStore, Store
from stages.judge.settings import JudgeSettings
from stages.signals.rows import COLUMNS
from tests.generation.inputs import LOCAL, REMOTE, remote
from tests.generation.server import Answer, refuses, says, serving
from tests.signals.rows import SCORED, responses
from tests.support import model_input, run_stage

Body = dict[str, Any]


def judged(store: Store, url: str, shards: int = 1, **settings: Any) -> Artifact:
    given = {"engine": remote(url), "samples": 2, "chunk_rows": 4, **settings}
    return run_stage(store, "judge", given, {"rows": responses(store), "judge": REMOTE}, shards=shards)


def rows_of(found: Artifact) -> dict[str, dict[str, Any]]:
    return {row["response_id"]: row for row in found.table().to_pylist()}


def asked(body: Body) -> str:
    text: str = body["messages"][-1]["content"]
    return text


def by_sample(*answers: str) -> Callable[[int, Body], Answer]:
    """The first answer to the first seed that is seen of a candidate, the second to the second, …"""
    seen: dict[str, list[int]] = {}

    def answer(_: int, body: Body) -> Answer:
        seeds = seen.setdefault(asked(body), [])
        if body["seed"] not in seeds:
            seeds.append(body["seed"])
        return says(answers[seeds.index(body["seed"])])

    return answer


def test_a_score_is_the_mean_of_its_ratings_and_every_answer_is_kept(file_store: Store) -> None:
    with serving(by_sample("Fine.\nScore: 4", "Poor.\nScore: 1")) as server:
        found = judged(file_store, server.url)
    rows = rows_of(found)
    assert list(rows) == SCORED
    for row in rows.values():
        assert (row["score"], row["method"], row["tie"], row["reason"]) == (2.5, "judge", False, None)
        assert sorted(row["ratings"]) == [1, 4]
        assert row["stderr"] == pytest.approx(1.5)
    answers = found.table("answers").to_pylist()
    assert len(answers) == 2 * len(SCORED)
    assert {answer["answer"] for answer in answers} == {"Fine.\nScore: 4", "Poor.\nScore: 1"}
    assert set(COLUMNS.names) <= set(found.table().column_names)
    assert all("Bird" in asked(body) and "5-point" in asked(body) for body in server.bodies)


def test_an_answer_without_a_rating_lowers_no_mean(file_store: Store) -> None:
    with serving(by_sample("Score: 4", "Lovely birds.")) as server:
        found = judged(file_store, server.url)
    for row in rows_of(found).values():
        assert (row["score"], row["stderr"], row["ratings"]) == (4, None, [4])
    assert found.manifest.figures["parsed"] == len(SCORED)
    assert found.manifest.figures["reasons"] == {"no_score": len(SCORED)}


def test_a_candidate_without_any_rating_has_no_score_and_says_why(file_store: Store) -> None:
    def answer(_: int, body: Body) -> Answer:
        return says("11/5" if "Name 1 birds" in asked(body) else "Score: 3")

    with serving(answer) as server:
        rows = rows_of(judged(file_store, server.url))
    for name, row in rows.items():
        unrated = name.startswith("r-1")
        assert row["score"] == (None if unrated else 3)
        assert row["reason"] == ("unrated: out_of_range" if unrated else None)


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("Nice birds.", "stop", "no_score"),
        ("", "stop", "empty"),
        ("11/5", "stop", "out_of_range"),
        ("The answer is relevant and", "length", "cut_before_score"),
    ],
)
def test_a_judge_that_never_rates_stops_the_run_with_the_figure(
    file_store: Store, text: str, finish: str, reason: str
) -> None:
    with serving(lambda *_: says(text, finish)) as server, pytest.raises(StageError) as caught:
        judged(file_store, server.url, gate_after=8)
    assert caught.value.code == ExitCode.GATE
    assert f"0 of 8 outputs (0.0%) are parsed, and least_parsed asks for 50%: 8 {reason}" in str(caught.value)


def test_a_judge_that_answers_429_costs_time_and_nothing_else(file_store: Store) -> None:
    """After the attempts of one request are used up the shard is tried again, and goes on where it was."""
    with serving(lambda number, _: says("Score: 2") if number < 8 else refuses(429, "slow down")) as server:
        with pytest.raises(StageError, match="no answer in 1 attempts") as caught:
            judged(file_store, server.url, samples=2, chunk_rows=4)
        assert caught.value.code == ExitCode.STORE  # tried again, nothing held against it
    asked_before = len(server.bodies)
    assert asked_before > 8
    with serving(lambda *_: says("Score: 4")) as server:
        rows = rows_of(judged(file_store, server.url, samples=2, chunk_rows=4))
    # The committed chunk was not paid for twice.
    assert [row["score"] for row in rows.values()] == [2] * 4 + [4] * (len(SCORED) - 4)
    assert len(server.bodies) == 2 * (len(SCORED) - 4)


def test_a_judge_that_times_out_is_named(file_store: Store) -> None:
    with serving(lambda *_: says("Score: 2"), delay_s=2) as server, pytest.raises(StageError) as caught:
        judged(file_store, server.url, engine={**remote(server.url), "timeout_s": 0.1})
    assert caught.value.code == ExitCode.STORE
    assert server.url in str(caught.value) and "engine.attempts" in str(caught.value)


def test_shards_ask_what_one_asks(file_store: Store, tmp_path: Path) -> None:
    with serving(lambda _, body: says(f"Score: {body['seed'] % 6}")) as server:
        one = rows_of(judged(file_store, server.url))
        two = rows_of(judged(FileStore(tmp_path / "two"), server.url, shards=2, chunk_rows=2))
    assert one == two


def test_the_key_comes_from_the_variable_that_the_settings_name(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sesame")
    with serving(lambda *_: says("Score: 2")) as server:
        judged(file_store, server.url, engine={**remote(server.url), "key_variable": "JUDGE_API_KEY"})
    assert set(server.keys) == {"Bearer sesame"}


def test_a_model_in_this_process_can_judge(file_store: Store, tiny_model: Path) -> None:
    settings = {**LOCAL, "samples": 1, "prefill": "Score:", "template": "{{ response }}", "least_parsed": 0.0}
    inputs = {"rows": responses(file_store), "judge": model_input(tiny_model)}
    found = run_stage(file_store, "judge", settings, inputs)
    assert len(found.table("answers")) == len(SCORED)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": "Rate {{ answer }}."}, "there is `instruction` and `response`"),
        ({"template": "Rate it."}, "neither"),
        ({"sampling": {"temperature": 0}}, "temperature above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JudgeSettings.model_validate(settings)
