"""The report of a made-up run: a page that opens anywhere, says what the numbers say, and survives missing nodes."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.contract.artifact import Artifact
from stages.contract.store import FileStore, Store
from tests.report.made_up import MadeUpRun, made_up_run
from tests.support import run_stage

VOID = {"meta", "br", "link", "img", "input", "hr"}
SECTIONS = (
    "loop", "influence", "students", "comparison", "progress", "texts", "lengths", "reliability", "agreement",
    "audit", "pairs", "diversity", "filtered", "training", "value", "cost",
)  # fmt: skip
FIGURES = {
    "loop", "influence", "helpful", "students", "differences", "reliability", "reliability-by-responses", "audit",
    "agreement-it1-influence-it1-judge",
    "loss-warmup", "loss-dpo", "loss-sft", "progress-students", "progress-influence", "progress-helpful",
    "texts-instruction", "texts-response", "lengths-influence", "lengths-judge", "value",
}  # fmt: skip


class Page(HTMLParser):
    """A page's elements; unclosed or misnested ones are errors."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(store: Store, run: MadeUpRun, tmp_path: Path, without: tuple[str, ...] = (), **settings: str) -> Path:
    kept = {name: each for name, each in run.artifacts.items() if not any(word in name for word in without)}
    run = dataclasses.replace(run, artifacts=kept)
    artifact = run_stage(store, "report", run.settings() | settings, run.report_inputs())
    return artifact.folder(tmp_path / "cache")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, MadeUpRun, Path]:
    root = tmp_path_factory.mktemp("report")
    store = FileStore(root / "store")
    run = made_up_run(store, root / "models")
    return store, run, report(store, run, root)


@pytest.fixture(scope="module")
def page(made: tuple[Store, MadeUpRun, Path]) -> Page:
    return Page((made[2] / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_loads_nothing(made: tuple[Store, MadeUpRun, Path], page: Page) -> None:
    html = (made[2] / "report.html").read_text(encoding="utf-8")
    loading = ("src", "srcset", "poster", "data", "action", "xlink:href")
    assert [(tag, each) for tag, each in page.elements if any(name in each for name in loading)] == []
    assert all((each["href"] or "").startswith("#") for each in page.all("a"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert "url(" not in html and "@import" not in html and "http" not in html


def test_every_section_and_figure_is_there_and_has_words_for_those_who_do_not_see_it(page: Page) -> None:
    assert [each["id"] for each in page.all("section")] == list(SECTIONS)
    ids = [each["id"] for _, each in page.elements if each.get("id")]
    assert len(ids) == len(set(ids))
    drawn = {(each["aria-labelledby"] or "").split("-t ")[0] for each in page.all("svg")}
    assert drawn == FIGURES | {"loop-narrow"}
    for each in page.all("svg"):
        assert each["role"] == "img" and all(name in ids for name in (each["aria-labelledby"] or "").split())
    assert all(each.get("scope") for each in page.all("th"))


def test_figures_are_also_files_that_are_valid_svg(made: tuple[Store, MadeUpRun, Path]) -> None:
    files = {path.stem: path for path in (made[2] / "figures").iterdir()}
    assert set(files) == FIGURES
    for path in files.values():
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "nan" not in path.read_text().lower().replace("finance", "")


def test_text_from_models_cannot_become_markup(page: Page) -> None:
    assert "Be <brief> & clear." in page.text
    assert "brief" not in {tag for tag, _ in page.elements}


def test_the_loop_shows_every_node_with_seconds_and_rows(made: tuple[Store, MadeUpRun, Path]) -> None:
    text = "".join(ElementTree.parse(made[2] / "figures" / "loop.svg").getroot().itertext())
    for name in made[1].artifacts:
        assert f"{name}: " in text
    assert "144 rows" in text and "175 seeds" in text


def test_summary_and_figures_hold_the_same_plain_numbers(made: tuple[Store, MadeUpRun, Path]) -> None:
    store, run, folder = made
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    moved = summary["numbers"]["influence"]["difference"]
    assert moved["paired_prompts"] >= 30 and moved["same_probe"] is True
    assert moved["low"] < 2.4e-4 < moved["high"]  # what the run was made up with
    compared = [(each["first"], each["second"]) for each in summary["numbers"]["students"]["differences"]]
    assert compared == [("tailored", "self-instruct"), ("tailored", "base"), ("self-instruct", "base")]
    kept = sum(row["usable"] for row in run_rows(store, run, "tailored.responses"))
    cost = summary["numbers"]["cost"]
    assert 0 < cost["seconds_per_row"] * kept < cost["seconds"]


def test_signals_on_the_same_candidates_are_compared_with_intervals(made: tuple[Store, MadeUpRun, Path]) -> None:
    summary = json.loads((made[2] / "summary.json").read_text(encoding="utf-8"))
    (each,) = summary["numbers"]["agreement"]["correlations"]
    assert (each["first"], each["second"]) == ("it1.influence", "it1.judge")
    for level in ("instructions", "responses"):
        found = each[level]["spearman"]
        assert 0 < found["low"] < found["value"] < found["high"] < 1
    assert each["responses"]["candidates"] > each["instructions"]["candidates"] > 50


def test_what_repeats_an_evaluation_row_is_shown_as_text(page: Page) -> None:
    assert "because of the <tide> and the moon" in page.text
    assert "tide" not in {tag for tag, _ in page.elements}


def run_rows(store: Store, run: MadeUpRun, node: str) -> list[dict[str, Any]]:
    return Artifact(store, run.artifacts[node].key).table().to_pylist()


def test_the_card_has_a_header_that_loads_the_data(made: tuple[Store, MadeUpRun, Path]) -> None:
    card = (made[2] / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    parsed = yaml.safe_load(header)
    assert parsed["configs"][0]["data_files"] == [{"split": "train", "path": "train.parquet"}]
    assert parsed["size_categories"] == ["n<1K"]
    assert "builtin:smollm2 without layers 12, 13" in body and "| tailored |" in body


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (("self-instruct",), "From it1 to tailored the mean moves"),
        (("audit",), "This run has no audit"),
        (("judge",), "No candidates of this run were scored by two signals"),
        (("diversity",), "This run did not check how varied its data are."),
        (("influence",), "This run measured no influence."),
        (("evaluate",), "This run evaluated no student."),
        (("comparison",), "This run compared no students."),
        (("dpo",), "This run looked at its teacher before and after its training only"),
        (("self-instruct", "it1"), "This run has data of one teacher only"),
        (("evaluate",), "It takes two students to set quality against cost."),
        (("it1.", "tailored.influence", "self-instruct.influence"), "This run averaged no scores"),
        (("warmup", "dpo", "sft"), "Nothing was trained in this run."),
        (("it1", "self-instruct", "tailored", "evaluate", "comparison"), "This run compared nothing"),
    ],
)
def test_a_run_without_some_nodes_gets_a_sentence_instead(
    made: tuple[Store, MadeUpRun, Path], tmp_path: Path, without: tuple[str, ...], words: str
) -> None:
    store, run, _ = made
    folder = report(store, run, tmp_path, without)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert words in page.text
    assert [each["id"] for each in page.all("section")] == list(SECTIONS)


def test_students_of_a_teacher_on_its_way_are_no_competitors_and_their_rows_are_told(
    made: tuple[Store, MadeUpRun, Path], page: Page
) -> None:
    numbers = json.loads((made[2] / "summary.json").read_text(encoding="utf-8"))["numbers"]
    assert set(numbers["value"]) == {"base", "self-instruct", "tailored"}
    assert {name: each["rows"] for name, each in numbers["progress"].items()} == {
        "before": 96, "step 24": 48, "step 48": 96,
    }  # fmt: skip
    assert "all from the same start and on 48 to 96 rows" in page.text


def test_further_students_on_the_same_data_are_compared_with_themselves(file_store: Store, tmp_path: Path) -> None:
    run = made_up_run(file_store, tmp_path / "models", gain=0.02, prompts=20, transfer=("wide",))
    folder = report(file_store, run, tmp_path)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "transfer" in [each["id"] for each in page.all("section")]
    assert "wide on the tailored data is better than itself on the self-instruct data" in page.text
    assert (folder / "figures" / "transfer.svg").is_file()
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["numbers"]["transfer"]
    compared = {(each["student"], each["second"]) for each in found["differences"]}
    assert compared == {(name, other) for name in ("the recipe's own", "wide") for other in ("self-instruct", "base")}


def test_what_came_before_is_the_unmodified_teacher_whoever_is_compared_with_first(
    made: tuple[Store, MadeUpRun, Path], tmp_path: Path
) -> None:
    store, run, _ = made
    folder = report(store, run, tmp_path, baseline="checkpoint-1")
    numbers = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["numbers"]
    assert (numbers["influence"]["before"], numbers["progress"]["before"]["branch"]) == (
        "self-instruct.influence",
        "self-instruct",
    )
    without = report(store, run, tmp_path, ("self-instruct.",), baseline="checkpoint-1")
    numbers = json.loads((without / "summary.json").read_text(encoding="utf-8"))["numbers"]
    assert numbers["influence"]["before"] == "it1.influence" and "before" not in numbers["progress"]


def test_a_run_that_changed_nothing_says_so(file_store: Store, tmp_path: Path) -> None:
    run = made_up_run(file_store, tmp_path / "models", gain=0.0, shift=0.0, prompts=20)
    folder = report(file_store, run, tmp_path)
    verdict = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["verdict"]
    assert [each["tone"] for each in verdict[:3]] == ["open", "good", "open"]
    assert "cannot be told from one trained on the self-instruct data" in verdict[0]["text"]
    assert "did not measurably change the influence" in verdict[2]["text"]
