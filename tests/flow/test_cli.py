"""The command line as a user meets it: what a mistake gets as an answer, and what it does not cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flow.cli import main
from stages.contract.store import FileStore

ROW = {"instruction": "Name a river.", "response": "The Danube."}
COMMANDS = ("init", "plan", "run", "status", "logs", "rerun", "cancel", "export", "trace", "report", "gc", "doctor")
OTHERS = [{"instruction": f"Name {number} rivers.", "response": "I know one."} for number in range(20)]


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Calls the program's own `main` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["montessori", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        code = caught.value.code
        return Answer(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return call


MISTAKES = [
    (("plan", "nowhere.yaml"), 64, "nowhere.yaml"),
    (("plan", "mine.yaml", "--set", "warmupp.batch=2"), 64, "warmup"),
    (("plan", "mine.yaml", "--set", "dpo.betta=2"), 64, "beta"),
    (("plan", "mine.yaml", "--set", "iterations=0"), 64, "iterations"),
    (("plan", "mine.yaml", "--set", "dpo.beta=much"), 64, "dpo.beta"),
    (("plan", "mine.yaml", "--set", "dpo.beta"), 64, "dpo.beta"),
    (("run", "mine.yaml", "--set", "teacher.model=./no/such/folder"), 64, "teacher.model"),
    (("run", "mine.yaml", "--set", "teacher.model=builtin:gpt"), 64, "builtin:gpt"),
    (("run", "mine.yaml", "--set", "prepare.seeds.uri=none.jsonl"), 64, "none.jsonl"),
    (("run", "mine.yaml", "--until", "it9.dpo"), 64, "it9.dpo"),
    (("run", "mine.yaml", "--store", "ftp://somewhere"), 64, "ftp://somewhere"),
    (("status",), 64, "no run in this store"),
    (("status", "nothing"), 64, "nothing"),
    (("logs", "it1.dpo"), 64, "no run in this store"),
    (("init", "no-such-recipe"), 64, "quickstart"),
    (("plan", "mine.yaml", "-o", "yaml"), 64, "json"),
    (("run", "mine.yaml", "--jobs", "0"), 64, "--jobs"),
    (("run", "mine.yaml", "--to", "mine.yaml"), 64, "mine.yaml"),
    (("run", "odd.yaml"), 64, "odd.yaml:2"),
    (("plan", "braces.yaml"), 64, "braces.yaml:1"),
    (("dance",), 64, "dance"),
    (("run",), 64, "recipe"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_named_before_anything_runs(cli, arguments: tuple[str, ...], code: int, text: str) -> None:  # type: ignore[no-untyped-def]
    assert cli("init", "quickstart", "--to", "mine.yaml").code == 0
    Path("odd.yaml").write_text("name: odd\non: true\n")
    Path("braces.yaml").write_text("name: {{x}}\n")
    answer = cli(*arguments)
    assert answer.code == code, answer.err
    assert answer.err.startswith("error: ") and text in answer.err
    assert not list(Path().rglob("artifacts")) and not Path("runs").exists()


def test_a_misspelt_override_in_the_environment_is_named(cli, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    cli("init", "quickstart", "--to", "mine.yaml")
    monkeypatch.setenv("MONTESSORI__DOP__BETA", "0.2")
    answer = cli("plan", "mine.yaml")
    assert answer.code == 64
    assert "MONTESSORI__DOP__BETA" in answer.err and "did you mean 'dpo'" in answer.err


def test_init_does_not_write_over_a_file(cli) -> None:  # type: ignore[no-untyped-def]
    Path("mine.yaml").write_text("precious")
    assert cli("init", "quickstart", "--to", "mine.yaml").code == 64
    assert Path("mine.yaml").read_text() == "precious"


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FILES = {
    "an empty file": (b"", "mine.jsonl"),
    "a row without the field": (jsonl(ROW, {"question": "Why?"}), "mine.jsonl line 2"),
    "broken UTF-8": (jsonl(ROW) + b'{"instruction": "caf\xe9"}\n', "mine.jsonl line 2"),
    "no JSON": (b"instruction,response\n", "mine.jsonl line 1"),
}


@pytest.mark.parametrize("name", FILES)
def test_seeds_that_cannot_be_read_stop_the_run_at_their_line(cli, name: str) -> None:  # type: ignore[no-untyped-def]
    data, where = FILES[name]
    Path("mine.jsonl").write_bytes(data)
    cli("init", "quickstart", "--to", "mine.yaml")
    answer = cli("run", "mine.yaml", "--set", "prepare.seeds.uri=mine.jsonl")
    assert answer.code == 65, answer.out + answer.err
    assert where in answer.out.replace("\n", "")
    assert "montessori logs prepare" in answer.out


def test_reference_rows_that_are_seeds_too_are_refused_or_dropped_as_asked(cli) -> None:  # type: ignore[no-untyped-def]
    Path("seeds.jsonl").write_bytes(jsonl(ROW, OTHERS[0]))
    Path("reference.jsonl").write_bytes(jsonl(*OTHERS))
    cli("init", "quickstart", "--to", "mine.yaml")
    changes = ["--set", "prepare.seeds.uri=seeds.jsonl", "--set", "prepare.reference.uri=reference.jsonl"]
    refused = cli("run", "mine.yaml", *changes, "--until", "prepare")
    assert refused.code == 65
    assert "Name 0 rivers" in refused.out and "prepare.overlap: drop" in refused.out
    assert cli("run", "mine.yaml", *changes, "--set", "prepare.overlap=drop", "--until", "prepare").code == 0
    store = FileStore(Path(".montessori"))
    (manifest,) = [key for key, _ in store.list("artifacts/prepare/") if key.endswith("/manifest.json")][:1]
    assert store.get_json(manifest)["figures"]["kept"]["seeds"] == 1


def test_help_answers_at_once_and_teaches(cli) -> None:  # type: ignore[no-untyped-def]
    text = cli("--help").out
    for command in COMMANDS:
        assert f"  {command} " in text
        assert len(cli(command, "--help").out) > 200
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import flow.cli"], capture_output=True, text=True, check=True
    ).stderr
    for heavy in ("torch", "pyarrow", "boto3", "pydantic_settings", "numpy"):
        assert f" {heavy}\n" not in loaded


def test_doctor_says_what_this_machine_has(cli) -> None:  # type: ignore[no-untyped-def]
    found = json.loads(cli("doctor", "-o", "json").out)
    assert {"python", "vllm", "machine", "disk", "store"} <= {check["name"] for check in found}
    assert all(check["level"] in ("ok", "warning", "error") and check["text"] for check in found)


def test_gc_of_an_empty_store_finds_nothing(cli) -> None:  # type: ignore[no-untyped-def]
    assert cli("gc").out.startswith("would delete 0 objects")
