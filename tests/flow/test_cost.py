"""What plan says of the cost of measuring influence, before anything is spent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flow.cost import ProbeCost, parameters, probe_costs, speed
from flow.graph import build
from flow.recipe import load_recipe
from stages.contract.ledger import Ledger
from stages.contract.manifest import Manifest
from stages.models.settings import ModelSource

RECIPE = Path("recipes/montessori-llama3-8b.yaml")


ONE_RESPONSE = {"responses": {"samples": 1}}


def costs(
    past: list[Manifest] | None = None, overrides: Mapping[str, Any] = ONE_RESPONSE
) -> dict[tuple[str, int], ProbeCost]:
    found = probe_costs(build(load_recipe(RECIPE, overrides)), past or [])
    return {(each.method, each.responses): each for each in found if each.node == "it1.influence"}


def audit(flops: float, seconds: float) -> Manifest:
    return Manifest(
        stage="audit",
        fingerprint="f",
        digest="d",
        shards=(),
        tables={},
        ledger=Ledger(device_seconds=seconds),
        figures={"flops": flops},
        run="earlier",
        node="it1.audit",
        finished="2026-01-01T00:00:00Z",
    )


def test_each_method_is_cheaper_than_the_one_before_it() -> None:
    found = costs()
    exact, two_stage, first_order = (found[method, 1] for method in ("exact", "two_stage", "first_order"))
    assert exact.flops > 1.5 * two_stage.flops > 1.5 * first_order.flops
    assert two_stage.chosen and not exact.chosen
    assert exact.candidates == two_stage.candidates > 5000


def test_four_responses_cost_about_four_times_one() -> None:
    found = costs()
    one, four = found["two_stage", 1], found["two_stage", 4]
    assert four.candidates == 4 * one.candidates
    assert 3.5 < four.seconds / one.seconds <= 4


def test_the_exact_cost_is_a_pass_over_the_reference_for_each_candidate() -> None:
    found = costs()["exact", 1]
    # 8e9 parameters, 2 operations a token, 40 bundled reference rows of some 195 tokens, and a step of at most 1024
    assert found.flops / found.candidates == pytest.approx(2 * 8e9 * (40 * 195 + 3 * 1024), rel=0.05)


def test_a_past_audit_says_how_fast_this_machine_is() -> None:
    slow, fast = costs(past=[audit(1e12, 100.0)]), costs(past=[audit(1e14, 100.0)])
    # not a hundred times: what Adam's update reads is a matter of bandwidth
    assert 50 < slow["exact", 1].seconds / fast["exact", 1].seconds < 100
    assert "earlier" in fast["exact", 1].assumed
    assert "guess" in speed([]).source


def test_a_size_comes_from_the_config_else_from_the_name(tmp_path: Path) -> None:
    llama = {"hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632}
    llama |= {"vocab_size": 32000, "num_hidden_layers": 22, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(llama))
    size, known_by = parameters(ModelSource(model=str(tmp_path))) or (0, "")
    assert size == pytest.approx(1_100_048_384, rel=1e-3) and known_by == "its config"
    assert parameters(ModelSource(model="org/TinyLlama-1.1B-chat")) == (1.1e9, "its name")
    assert parameters(ModelSource(model="org/SmolLM2-135M")) == (135e6, "its name")
    assert parameters(ModelSource(model="org/mystery")) is None
    pruned = parameters(ModelSource(model=str(tmp_path), drop_layers=(1, 2)))
    assert pruned is not None and pruned[0] < size


def test_a_size_that_the_config_nests_is_found_and_one_of_other_names_comes_from_the_name(tmp_path: Path) -> None:
    text = {"hidden_size": 640, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256}
    text |= {"intermediate_size": 2048, "num_hidden_layers": 18, "vocab_size": 262144}
    gemma, gpt = tmp_path / "gemma-3", tmp_path / "gpt2-124m"
    for folder, config in ((gemma, {"text_config": text, "tie_word_embeddings": True}), (gpt, {"n_embd": 768})):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
    size, known_by = parameters(ModelSource(model=str(gemma))) or (0, "")
    assert size == pytest.approx(268e6, rel=0.01) and known_by == "its config"
    assert parameters(ModelSource(model=str(gpt))) == (124e6, "its name")


def test_a_student_of_unknown_size_costs_nothing_that_could_be_said() -> None:
    assert costs(overrides={"student": {"model": "org/mystery"}}) == {}


def test_final_data_is_costed_with_its_own_numbers() -> None:
    nodes = {each.node for each in probe_costs(build(load_recipe(Path("recipes/quickstart.yaml"))), [])}
    assert nodes == {"it1.influence", "tailored.influence", "self-instruct.influence"}
