"""A recipe's model becomes a folder, or one clear line."""

import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from stages.contract.errors import ExitCode, StageError
from stages.models.settings import ModelSource
from stages.models.source import resolve


class Hub(HTTPServer):
    """A model hub that refuses everything with one status and one error code, as the real one words it."""

    answer: tuple[int, str]


class Refuse(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        status, code = self.server.answer
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the tests' output clean."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Refuse)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refusal(cache: Path, model: str, revision: str | None = None) -> StageError:
    with pytest.raises(StageError) as raised:
        resolve(ModelSource(model=model, revision=revision), cache)
    assert "\n" not in str(raised.value)
    return raised.value


def test_a_folder_is_taken_as_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    assert resolve(ModelSource(model=str(tiny_llama)), tmp_path / "cache") == tiny_llama
    assert not (tmp_path / "cache").exists()


def test_a_relative_folder_wins_over_a_hub_id(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_llama, tmp_path / "org" / "name")
    assert resolve(ModelSource(model="org/name"), tmp_path / "cache") == tmp_path / "org" / "name"


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nothing", "smollm2"])
def test_a_folder_that_does_not_exist_is_refused(model: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, model)
    assert error.code == ExitCode.BAD_SETTINGS
    assert error.where == model
    assert "builtin:smollm2" in str(error)


def test_an_unknown_built_in_model_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    error = refusal(tmp_path, "builtin:gpt4")
    assert error.code == ExitCode.BAD_SETTINGS
    assert "there is builtin:smollm2" in str(error)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    error = refusal(tmp_path, str(tmp_path))
    assert error.code == ExitCode.BAD_SETTINGS
    assert "safetensors" in str(error)


HUB_ANSWERS = {
    "RepoNotFound": (404, "no such model on the hub"),
    "RevisionNotFound": (404, "no revision 'main'"),
    "GatedRepo": (403, "accept its licence"),
}


@pytest.mark.parametrize(("answer", "status", "words"), [(k, *v) for k, v in HUB_ANSWERS.items()])
def test_what_the_hub_refuses_is_refused(answer: str, status: int, words: str, hub: Hub, tmp_path: Path) -> None:
    hub.answer = (status, answer)
    error = refusal(tmp_path, "org/name", revision="main")
    assert error.code == ExitCode.BAD_SETTINGS
    assert words in str(error)


def test_a_hub_that_fails_is_worth_another_try(hub: Hub, tmp_path: Path) -> None:
    hub.answer = (500, "")
    assert refusal(tmp_path, "org/name").code == ExitCode.STORE


def test_a_hub_that_does_not_answer_is_worth_another_try(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    assert refusal(tmp_path, "org/name").code == ExitCode.STORE


def test_offline_a_model_that_was_never_downloaded_is_refused(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal(tmp_path, "org/name")
    assert error.code == ExitCode.BAD_SETTINGS
    assert "HF_HUB_OFFLINE" in str(error)
