"""The comments in values.yaml as schema and table, and what is refused there."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.chart.conftest import CHART

SCRIPT = CHART.parent / "document.py"


@pytest.fixture(scope="module")
def document() -> ModuleType:
    spec = importlib.util.spec_from_file_location("document", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["document"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHART, tmp_path / "chart"))


def test_the_chart_is_documented_as_it_is(document: ModuleType) -> None:
    assert document.main(["--check", str(CHART)]) == 0


def test_a_value_is_described_typed_and_listed(document: ModuleType) -> None:
    values = document.read_values('a:\n  # How many.\n  # schema: {"minimum": 1}\n  b: 2\n')
    assert document.schema_of(values)["properties"]["a"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"b": {"description": "How many.", "type": "integer", "minimum": 1}},
    }
    assert "| `a.b` | `2` | How many. |" in document.table_of(values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  b: 1\n", "line 2: a.b has no comment"),
        ("# Names.\n# schema: {enum}\na: 1\n", "line 2: not a JSON object"),
        ("a: {}\n", "line 1: a has no comment"),
    ],
)
def test_what_cannot_be_documented_is_refused_with_its_line(document: ModuleType, text: str, said: str) -> None:
    with pytest.raises(document.Mistake, match=said):
        document.read_values(text)


def test_a_value_that_no_template_reads_is_named(
    document: ModuleType, chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = chart / "values.yaml"
    values.write_text(values.read_text() + "\n# Does nothing.\nidle: true\n")
    assert document.main([str(chart)]) == 1
    assert "no template reads idle" in capsys.readouterr().err


def test_a_changed_comment_is_noticed_until_the_documents_are_made_again(
    document: ModuleType, chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = chart / "values.yaml"
    values.write_text(values.read_text().replace("When an image is pulled.", "When images are pulled."))
    assert document.main(["--check", str(chart)]) == 1
    assert "values.schema.json" in capsys.readouterr().err
    assert document.main([str(chart)]) == 0
    assert document.main(["--check", str(chart)]) == 0
    schema = json.loads((chart / "values.schema.json").read_text())
    assert schema["properties"]["imagePullPolicy"]["description"] == "When images are pulled."
