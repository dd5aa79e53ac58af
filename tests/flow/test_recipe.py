"""Recipes: what is refused and with which words, and where values come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flow.bundled import listing
from flow.graph import build
from flow.recipe import SECTIONS, UNREAD, check_recipe, load_recipe, parse_set
from stages.contract.errors import ExitCode, StageError

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SMALL: dict[str, Any] = {
    "name": "small",
    "teacher": {"model": "builtin:smollm2"},
    "student": {"model": "builtin:smollm2", "drop_layers": [3]},
}


# Best against worst response, with a gap in standard errors.
GAPS = {"optimise": "responses", "policy": "best_worst", "least_gap_se": 1.5}
RELIABLE = {"least_reliability": 0.5}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def refused(path: Path, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(StageError) as caught:
        load_recipe(path, overrides)
    assert caught.value.code is ExitCode.BAD_SETTINGS
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem
    assert path.stem in dict(listing())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iteratons": 1}, ["iteratons: unknown key", "did you mean 'iterations'?"]),
        ({"dpo": {"bета": 0.2}}, ["dpo.bета: unknown key"]),
        ({"dpo": {"betta": 0.2}}, ["dpo.betta: unknown key", "did you mean 'beta'?"]),
        ({"instructions": {"sampling": {"temprature": 1}}}, ["instructions.sampling.temprature", "'temperature'?"]),
        ({"iterations": 0}, ["iterations", "greater than or equal to 1", "not 0"]),
        ({"dpo": {"beta": "much"}}, ["dpo.beta", "valid number", "'much'"]),
        ({"name": "My Run"}, ["name", "lower-case"]),
        ({"student": {"model": "builtin:smollm2", "drop_layer": [1]}}, ["student.drop_layer", "'drop_layers'?"]),
        ({"run": {"shards": {"influense": 4}}}, ["'influense'", "did you mean 'influence'?"]),
        ({"run": {"shards": {"dpo": 4}}}, ["dpo cannot be sharded"]),
        ({"run": {"shards": {"influence": 100_001}}}, ["influence can have 100,000 shards at most"]),
        ({"fresh": {"dpo": {"beta": 1}}}, ["fresh has no section 'dpo'"]),
        ({"fresh": {"responses": {"sampels": 1}}}, ["fresh.responses.sampels"]),
        ({"compare": ["self-instuct"]}, ["compare.0"]),
        ({"pairs": {"least_gap_se": 1.5}, "responses": {"samples": 1}}, ["pairs.least_gap_se", "responses.samples: 1"]),
        ({"pairs": GAPS, "compare": ["self-reward"], "judge": {"samples": 1}}, ["least_gap_se", "judge.samples: 1"]),
        ({"pairs": GAPS, "signal": "loss"}, ["least_gap_se", "a response's loss", "optimise: instructions"]),
        ({"pairs": RELIABLE, "responses": {"samples": 1}}, ["pairs.least_reliability", "(responses.samples: 1)"]),
        ({"pairs": RELIABLE, "instructions": {"samples": 1}}, ["least_reliability", "(instructions.samples: 1)"]),
        ({"pairs": {**RELIABLE, "optimise": "responses"}}, ["pairs.least_reliability", "optimise: both"]),
        ({"audit": {"lr": 1e-4}}, ["audit.lr", "set influence.lr"]),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    text = refused(write(tmp_path, **changes))
    for each in [str(tmp_path / "recipe.yaml"), *words]:
        assert each in text


def test_a_gap_in_standard_errors_is_asked_for_where_there_can_be_some(tmp_path: Path) -> None:
    load_recipe(write(tmp_path, pairs=GAPS, compare=["self-reward", "random", "llm2llm"], responses={"samples": 1}))
    load_recipe(write(tmp_path, pairs={**GAPS, "optimise": "instructions"}, signal="loss", responses={"samples": 2}))


def test_reliability_is_asked_for_where_it_can_be_known(tmp_path: Path) -> None:
    load_recipe(write(tmp_path, pairs={**RELIABLE, "optimise": "both"}, responses={"samples": 2}))
    # Neither pairs by scores that must be reliable.
    load_recipe(write(tmp_path, pairs=RELIABLE, signal="random", responses={"samples": 1}))
    load_recipe(write(tmp_path, pairs=RELIABLE, update="reseed", responses={"samples": 1}))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = refused(write(tmp_path, iterations=0, dpo={"betta": 1}))
    assert "iterations" in text and "dpo.betta" in text


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: small\nteacher: {model: builtin:smollm2}\n")
    assert "student: must be given" in refused(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "recipe.yaml:"),
        ("- a\n- b\n", "mapping"),
        ("name: a\nname: b\n", "'name' stands twice"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert words in refused(path)


def test_a_recipe_that_is_not_there_names_the_way_to_one(tmp_path: Path) -> None:
    assert "montessori init" in refused(tmp_path / "none.yaml")


def test_set_wins_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, dpo={"beta": 0.1, "batch": 4})
    assert load_recipe(path).section("dpo").beta == 0.1  # type: ignore[attr-defined]
    monkeypatch.setenv("MONTESSORI__DPO__BETA", "0.2")
    changed = load_recipe(path).section("dpo")
    assert (changed.beta, changed.batch) == (0.2, 4)  # type: ignore[attr-defined]
    assert load_recipe(path, parse_set(["dpo.beta=0.3"])).section("dpo").beta == 0.3  # type: ignore[attr-defined]


def test_a_misspelt_override_is_refused_like_a_misspelt_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dpo.betta" in refused(write(tmp_path), parse_set(["dpo.betta=1"]))
    monkeypatch.setenv("MONTESSORI__DPO__BETTA", "1")
    assert "dpo.betta" in refused(write(tmp_path))


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(SMALL) + "dpo: {learning_rate: 5e-6}\n")
    assert load_recipe(path).section("dpo").learning_rate == 5e-6  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["dpo.beta", "=3", "dpo.beta=[1"])
def test_an_override_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StageError):
        parse_set([text])


def test_fresh_settings_stand_on_top_of_the_section(tmp_path: Path) -> None:
    path = write(tmp_path, instructions={"prompts": 5, "samples": 3}, fresh={"instructions": {"prompts": 2}})
    fresh = load_recipe(path).fresh_settings("instructions")
    assert (fresh.prompts, fresh.samples) == (2, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "arte", "pairs": {"policy": "ranked"}}, "pairs: method arte does not read it"),
        (
            {"method": "arte", "fresh": {"influence": {"per_side": 2}, "instructions": {"prompts": 3}}},
            "fresh.influence, fresh.instructions: method arte does not read them",
        ),
        ({"fresh": {"questions": {"prompts": 3}}}, "fresh.questions: method montessori does not read it"),
        (
            {"preferences": {"least_pairs": 2}, "panel": {"shots": [0]}},
            "panel, preferences: method montessori does not read them",
        ),
        (
            {"method": "self-instruct", "iterations": 3, "dpo": {"beta": 0.2}},
            "iterations, dpo: method self-instruct does not read them",
        ),
    ],
)
def test_what_a_method_does_not_read_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refused(write(tmp_path, **changes))


def test_a_section_that_says_what_stands_anyway_is_not_refused(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, method="arte", pairs={"policy": "all"}, iterations=1)).method == "arte"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_that_comes_back_from_the_store_is_the_same(path: Path) -> None:
    recipe = load_recipe(path)
    again = check_recipe(json.loads(recipe.model_dump_json()), {}, where="store")
    assert again.model_dump() == recipe.model_dump()


BENCHMARKS = ["winrate", "mtbench", "harness"]


@pytest.mark.parametrize(
    ("method", "most"),
    [
        (
            "montessori",
            {"compare": ["self-instruct", "self-reward", "llm2llm", "bootstrap", "random"], "benchmarks": BENCHMARKS},
        ),
        ("arte", {"compare": ["self-instruct", "self-reward", "random"]}),
        ("self-instruct", {"benchmarks": BENCHMARKS}),
    ],
)
def test_a_method_reads_the_sections_of_its_stages_and_no_others(
    tmp_path: Path, method: str, most: dict[str, Any]
) -> None:
    used = {node.stage for node in build(load_recipe(write(tmp_path, method=method, **most))).nodes.values()}
    assert used & set(SECTIONS) == set(SECTIONS) - set(UNREAD[method])
