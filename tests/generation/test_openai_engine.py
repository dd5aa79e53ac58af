"""The engine for remote models, against a real HTTP server in this process."""

import socket
import threading
import time
from typing import Any

import pytest

from stages.contract.errors import ExitCode, Interrupted, StageError
from stages.generation.engines.openai import OpenAIEngine
from stages.generation.prompts import chat, untemplated
from stages.generation.request import Completion, Request
from stages.generation.settings import EngineSettings, SamplingSettings
from tests.generation.server import Answer, refuses, says, serving

STOP = "</instruction>"
KEY_VARIABLE = "OPENAI_API_KEY"
TEXTS = ("Name a bird.", "Name a fish.", "Name a tree.")


def engine(url: str, **settings: Any) -> OpenAIEngine:
    return OpenAIEngine(EngineSettings(kind="openai", base_url=url, model="m", **settings))


def request(text: str = TEXTS[0], seed: int = 1, prefill: str = "", **sampling: Any) -> Request:
    return Request(untemplated(chat(text), prefill), seed, SamplingSettings(**sampling), stop=(STOP,))


def never() -> None:
    pass


def ask(url: str, *requests: Request, **settings: Any) -> list[Completion]:
    return engine(url, **settings).generate(requests or [request()], never)


def caught(url: str, **settings: Any) -> StageError:
    with pytest.raises(StageError) as found:
        ask(url, **settings)
    return found.value


def test_answers_come_in_the_order_of_the_requests() -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        time.sleep(0.2 if body["seed"] == 0 else 0)  # the first request is answered last
        return says(body["messages"][-1]["content"].upper())

    with serving(answer) as server:
        got = ask(server.url, *(request(text, seed) for seed, text in enumerate(TEXTS)))
    assert [each.text for each in got] == [text.upper() for text in TEXTS]
    assert {(body["seed"], body["model"]) for body in server.bodies} == {(0, "m"), (1, "m"), (2, "m")}


def test_openai_is_sent_nothing_beyond_its_api_and_the_cut_is_made_here() -> None:
    with serving(lambda *_: says(f"<instruction>Sing.{STOP} And then?", "length")) as server:
        got = ask(server.url, request(prefill="<instruction>"))
    assert got == [Completion(f"<instruction>Sing.{STOP}", "stop", 7, 3)]
    assert server.bodies[0].keys() == {
        "model", "messages", "seed", "temperature", "top_p", "presence_penalty", "max_tokens",
    }  # fmt: skip
    assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "<instruction>"}


def test_a_vllm_server_continues_the_begun_turn_and_stops() -> None:
    with serving(lambda *_: says(f"Sing.{STOP}")) as server:
        ask(server.url, request(prefill="<instruction>", top_k=5), server="vllm")
    body = server.bodies[0]
    assert body["continue_final_message"] and body["add_generation_prompt"] is False
    assert (body["stop"], body["include_stop_str_in_output"], body["top_k"]) == ([STOP], True, 5)


def test_a_vllm_server_is_not_told_to_continue_what_was_not_begun() -> None:
    with serving(lambda *_: says("Sing.")) as server:
        ask(server.url, server="vllm")
    assert "continue_final_message" not in server.bodies[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(lambda number, _: refuses(status, "busy") if number == 0 else says("Yes.")) as server:
        assert ask(server.url)[0].text == "Yes."
    assert len(server.bodies) == 2


class Waiting:
    """The module `time` for the client library, with pauses that pass at once."""

    def __init__(self) -> None:
        self.waited = 0.0

    def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def test_a_server_that_refuses_for_a_minute_is_outlasted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Waiting()
    monkeypatch.setattr("openai._base_client.time", clock)
    monkeypatch.setattr("openai._base_client.random", lambda: 0.5)  # the mean of its jitter
    with serving(lambda *_: refuses(429, "busy") if clock.waited < 60 else says("Yes.")) as server:
        assert ask(server.url)[0].text == "Yes."
    assert clock.waited >= 60 and len(server.bodies) > 5


def test_a_server_that_stays_busy_is_left_for_later() -> None:
    with serving(lambda *_: refuses(429, "busy")) as server:
        error = caught(server.url, attempts=2)
    assert error.code == ExitCode.STORE
    assert "no answer in 2 attempts" in str(error)
    assert len(server.bodies) == 2


def test_a_server_that_takes_too_long_is_left_for_later() -> None:
    with serving(lambda *_: says("Yes."), delay_s=1) as server:
        error = caught(server.url, attempts=1, timeout_s=0.2)
    assert error.code == ExitCode.STORE


def test_a_server_that_is_not_there_is_left_for_later() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = caught(f"http://127.0.0.1:{port}/v1", attempts=1)
    assert error.code == ExitCode.STORE
    assert str(port) in str(error)


REFUSALS = {
    "a wrong key": (401, "Incorrect API key", KEY_VARIABLE),
    "a forbidden model": (403, "not yours", KEY_VARIABLE),
    "an unknown model": (404, "The model `m` does not exist", "engine.model"),
    "a bad request": (400, "temperature is odd", "temperature is odd"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_asking_again_does_not_help_fails_the_run(name: str) -> None:
    status, message, words = REFUSALS[name]
    with serving(lambda *_: refuses(status, message)) as server:
        error = caught(server.url)
    assert error.code == ExitCode.BAD_SETTINGS
    assert message in str(error) and words in str(error)
    assert len(server.bodies) == 1


def test_a_prompt_beyond_the_context_is_answered_with_the_reason() -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        if body["seed"] == 1:
            return refuses(400, "This model's maximum context length is 8 tokens", "context_length_exceeded")
        return says("Yes.")

    with serving(answer) as server:
        got = ask(server.url, request(seed=1), request(seed=2))
    assert [each.finish_reason for each in got] == ["prompt_too_long", "stop"]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sesame")
    with serving(lambda *_: says("Yes.")) as server:
        ask(server.url)
    assert server.keys == ["Bearer sesame"]


def test_a_judge_of_another_provider_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "open")
    with serving(lambda *_: says("Yes.")) as server:
        ask(server.url, key_variable="JUDGE_API_KEY")
    assert server.keys == ["Bearer open"]


def test_an_answer_without_choices_is_an_empty_one() -> None:
    with serving(lambda *_: (200, {**says("")[1], "choices": []})) as server:
        assert ask(server.url)[0].text == ""


def test_no_more_requests_are_under_way_than_allowed() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def answer(number: int, body: dict[str, Any]) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return says("Yes.")

    with serving(answer) as server:
        ask(server.url, *(request(seed=seed) for seed in range(8)), concurrency=2)
    assert most == 2


def test_it_can_be_stopped() -> None:
    def stop() -> None:
        raise Interrupted

    with serving(lambda *_: says("Yes.")) as server, pytest.raises(Interrupted):
        engine(server.url).generate([request()], stop)
