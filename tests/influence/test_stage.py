"""The stages `audit` and `influence` on a tiny student: every method, any number of shards, rows without a score."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from stages.contract.context import StageContext
from stages.contract.errors import ExitCode, StageError
from stages.contract.store import Store
from stages.contract.task import Input
from stages.influence.settings import InfluenceSettings
from tests.influence.stages import INSTRUCTIONS, PROMPTS, REFERENCE, RESPONSES, candidates, checkpoint, stage_inputs
from tests.support import artifact_input, run_stage, tiny_llama

SETTINGS = {"max_tokens": 128, "gradient_groups": 2, "chunk_rows": 1}
AUDIT = {"max_tokens": 128, "gradient_groups": 2, "size": 6, "noise_candidates": 2, "noise_draws": 2}
COUNT = PROMPTS * INSTRUCTIONS * RESPONSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("checkpoint") / "student")


@pytest.fixture
def inputs(file_store: Store, folder: Path) -> dict[str, Input]:
    return dict(stage_inputs(file_store, folder))


def audited(store: Store, inputs: dict[str, Input], **settings: Any) -> dict[str, Input]:
    return {**inputs, "audit": artifact_input(run_stage(store, "audit", {**AUDIT, **settings}, inputs))}


def influence(store: Store, inputs: dict[str, Input], method: str, shards: int = 1) -> list[dict[str, Any]]:
    found = run_stage(store, "influence", {**SETTINGS, "method": method}, inputs, shards=shards)
    return found.table().to_pylist()


@pytest.mark.parametrize("method", ["exact", "first_order", "two_stage"])
def test_any_number_of_shards_gives_the_same_scores_bit_for_bit(
    method: str, file_store: Store, inputs: dict[str, Input], folder: Path, tmp_path: Path
) -> None:
    inputs = audited(file_store, inputs, threshold=-1)
    whole = influence(file_store, inputs, method)
    assert [row["response_id"] for row in whole] == [row["response_id"] for row in candidates()[:-1]]
    assert all(row["score"] is not None and row["reason"] is None for row in whole)
    # Another store: in this one the artifact is there already.
    other = type(file_store)(tmp_path / "other")
    assert influence(other, audited(other, dict(stage_inputs(other, folder)), threshold=-1), method, 3) == whole


@pytest.mark.parametrize("scattered", [False, True])
def test_a_shard_reads_the_texts_of_its_own_prompts_alone(
    scattered: bool, file_store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sorted(candidates(), key=lambda row: row["response_id"][-1]) if scattered else candidates()
    read: list[int] = []
    whole = StageContext.table

    def watched(context: StageContext, *arguments: Any, **named: Any) -> pa.Table:
        found = whole(context, *arguments, **named)
        if (
            "response" in found.column_names
            and context.task.stage == "influence"
            and "ref_id" not in found.column_names
        ):
            read.append(found.num_rows)
        return found

    monkeypatch.setattr(StageContext, "table", watched)
    found = influence(file_store, dict(stage_inputs(file_store, folder, rows=rows)), "first_order", shards=3)
    by_prompt = sorted((row for row in rows if row["split"] == "candidate"), key=lambda row: row["prompt_id"])
    assert [row["response_id"] for row in found] == [row["response_id"] for row in by_prompt]
    assert all(row["score"] is not None for row in found)
    assert scattered or read == [COUNT // 3] * 3


def test_first_order_ranks_as_exact_does(file_store: Store, inputs: dict[str, Input]) -> None:
    from scipy.stats import spearmanr

    exact = {row["response_id"]: row["score"] for row in influence(file_store, inputs, "exact")}
    first = {row["response_id"]: row["score"] for row in influence(file_store, inputs, "first_order")}
    assert spearmanr(list(exact.values()), [first[name] for name in exact]).statistic > 0.9
    assert len(set(exact.values())) == COUNT


def test_two_stage_scores_the_ends_of_each_prompt_exactly(file_store: Store, inputs: dict[str, Input]) -> None:
    inputs = audited(file_store, inputs, threshold=-1)
    rows = influence(file_store, inputs, "two_stage")
    exact = {row["response_id"]: row for row in influence(file_store, inputs, "exact")}
    for prompt in range(PROMPTS):
        means: dict[str, float] = {}
        methods: dict[str, set[str]] = {}
        for row in (each for each in rows if each["prompt_id"] == f"p-{prompt}"):
            means[row["instruction_id"]] = means.get(row["instruction_id"], 0) + row["score"]
            methods.setdefault(row["instruction_id"], set()).add(row["method"])
        for end in (min(means, key=means.__getitem__), max(means, key=means.__getitem__)):
            assert methods[end] == {"exact"}
        assert all(len(each) == 1 for each in methods.values())
    for row in rows:
        if row["method"] == "exact":
            assert row["score"] == pytest.approx(exact[row["response_id"]]["score"], rel=1e-3, abs=1e-6)
            assert len(row["reference_nll"]) == len(REFERENCE)


def test_two_stage_corrects_the_ends_on_some_of_the_reference_rows(file_store: Store, inputs: dict[str, Input]) -> None:
    groups = {"gradient_groups": 4, "corrected_groups": 2}
    inputs = audited(file_store, inputs, threshold=-1, **groups)
    found = run_stage(file_store, "influence", {**SETTINGS, **groups, "method": "two_stage"}, inputs)
    figures = found.manifest.figures["audit"]
    assert 0 < figures["corrected_rows"] < len(REFERENCE)
    assert -1 <= figures["corrected"]["spearman"] <= 1
    assert figures["noise"]["corrected"] > 0
    rows = found.table().to_pylist()
    assert {row["method"] for row in rows} == {"first_order", "corrected", "exact"}
    exact = {row["response_id"]: row["score"] for row in influence(file_store, inputs, "exact")}
    spread = max(exact.values()) - min(exact.values())
    for row in rows:
        if row["method"] == "corrected":
            assert row["exact"] is None and row["reference_nll"] is None
            assert row["first_order"] != row["score"] == pytest.approx(exact[row["response_id"]], abs=0.1 * spread)
            noise = math.hypot(figures["noise"]["corrected"], figures["corrected"]["residual"])
            assert row["noise"] == pytest.approx(noise)


def test_one_corrected_group_is_refused_because_it_has_no_error() -> None:
    with pytest.raises(ValueError, match="one group alone has no error"):
        InfluenceSettings(corrected_groups=1)


def test_two_stage_scores_all_exactly_where_the_audit_was_not_passed(
    file_store: Store, inputs: dict[str, Input]
) -> None:
    inputs = audited(file_store, inputs, size=2)  # two candidates have no correlation: it could not be measured
    found = run_stage(file_store, "influence", {**SETTINGS, "method": "two_stage"}, inputs)
    assert {row["method"] for row in found.table().to_pylist()} == {"exact"}
    assert (found.manifest.figures["asked"], found.manifest.figures["method"]) == ("two_stage", "exact")
    assert found.manifest.figures["audit"]["decision"] == "exact"


def test_the_audit_publishes_its_agreement_and_both_noise_floors(file_store: Store, inputs: dict[str, Input]) -> None:
    found = run_stage(file_store, "audit", AUDIT, inputs)
    figures = found.manifest.figures
    assert figures["candidates"] == 6
    assert figures["reference_rows"] == len(REFERENCE)
    assert -1 <= figures["spearman"] <= 1 and -1 <= figures["pearson"] <= 1
    scores = [row["exact"] for row in found.table().to_pylist()]
    spread = max(scores) - min(scores)
    assert 0 < figures["noise"]["exact"] < spread
    assert 0 < figures["noise"]["first_order"] < spread
    with_noise = influence(file_store, {**inputs, "audit": artifact_input(found)}, "first_order")
    for row in with_noise:
        # Rounding is a millionth of what the line misses, and a tie within the latter is as much a tie.
        assert row["noise"] == pytest.approx(math.hypot(figures["noise"]["first_order"], figures["residual"]))
        assert row["noise"] > 100 * figures["noise"]["first_order"]
        assert row["tie"] == (abs(row["score"]) < 2 * row["noise"])


IN_NOISE = {"forward_dtype": "bfloat16", "lr": 5e-6}


@pytest.mark.parametrize("method", ["two_stage", "exact"])
def test_exact_scores_that_are_noise_stop_the_run_with_a_way_out(
    method: str, file_store: Store, inputs: dict[str, Input]
) -> None:
    inputs = audited(file_store, inputs, **IN_NOISE)
    with pytest.raises(StageError, match="they rank nothing and cannot judge first order") as caught:
        run_stage(file_store, "influence", {**SETTINGS, **IN_NOISE, "method": method}, inputs)
    assert caught.value.code == ExitCode.GATE
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("influence.forward_dtype: float32, or influence.method: first_order")


def test_first_order_goes_on_where_exact_scores_are_noise_and_says_so(
    file_store: Store, inputs: dict[str, Input]
) -> None:
    inputs = audited(file_store, inputs, **IN_NOISE)
    found = run_stage(file_store, "influence", {**SETTINGS, **IN_NOISE, "method": "first_order"}, inputs)
    figures = found.manifest.figures["audit"]
    assert figures["decision"] == "noise" and figures["residual"] is None
    assert {row["noise"] for row in found.table().to_pylist()} == {figures["noise"]["first_order"]}


def test_a_row_longer_than_the_students_context_loses_its_end_there(
    file_store: Store, inputs: dict[str, Input], folder: Path
) -> None:
    rows = candidates()
    rows[0] = {**rows[0], "response": "word " * 4000}
    rows[1] = {**rows[1], "instruction": "word " * 4000}
    reference = [*REFERENCE, {**REFERENCE[0], "ref_id": "ref-long", "response": "word " * 4000}]
    given = dict(stage_inputs(file_store, folder, rows=rows, reference=reference))
    found = run_stage(file_store, "influence", {**SETTINGS, "max_tokens": 10_000, "method": "first_order"}, given)
    cut, full, *others = found.table().to_pylist()
    context = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    assert 0 < cut["tokens"] < context and cut["score"] is not None
    assert full["reason"].startswith("no_response_token_left") and f"max_tokens is {context}" in full["reason"]
    assert all(row["score"] is not None for row in others)
    assert cut["truncated"] and not any(row["truncated"] for row in (full, *others))
    assert found.manifest.figures["reference_truncated"] == 1


def _with_nan(folder: Path) -> str:
    weights = load_file(folder / "weights.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "weights.safetensors")
    return "weights.safetensors: model.layers.1.mlp.up_proj.weight: holds NaN or infinity"


def _with_zero_moments(folder: Path) -> str:
    moments = load_file(folder / "exp_avg_sq.safetensors")
    moments["model.norm.weight"].zero_()
    save_file(moments, folder / "exp_avg_sq.safetensors")
    return "exp_avg_sq.safetensors: model.norm.weight: second moments are zero throughout"


def _of_another_model(folder: Path) -> str:
    tiny_llama(folder / "other", layers=3)
    (folder / "other" / "config.json").replace(folder / "config.json")
    return "missing"


def _without_optimizer(folder: Path) -> str:
    (folder / "optimizer.json").unlink()
    return "optimizer.json: cannot be read"


def _without_a_step(folder: Path) -> str:
    path = folder / "optimizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 0}))
    return "optimizer.json: step: the warm-up took no step"


def _without_learning_rate(folder: Path) -> str:
    path = folder / "optimizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lr": float("nan")}))
    return "optimizer.json: lr: nan is not a finite number above zero"


def _without_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "not a Hugging Face model"


def _with_half_a_config(folder: Path) -> str:
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes()[:100])
    return "not a Hugging Face model"


def _without_a_context(folder: Path) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": None}))
    return "not a Hugging Face model"


def _without_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "no tokenizer that can be read"


def _with_an_empty_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text("{}")
    return "no tokenizer that can be read: KeyError"


@pytest.mark.parametrize(
    "spoil",
    [
        _with_nan,
        _with_zero_moments,
        _of_another_model,
        _without_optimizer,
        _without_a_step,
        _without_learning_rate,
        _without_config,
        _with_half_a_config,
        _without_a_context,
        _without_tokenizer,
        _with_an_empty_tokenizer,
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_bad_data(
    spoil: Callable[[Path], str], file_store: Store, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "student")
    text = spoil(folder)
    with pytest.raises(StageError) as caught:
        influence(file_store, dict(stage_inputs(file_store, folder)), "first_order")
    assert caught.value.code == ExitCode.BAD_DATA
    assert text in str(caught.value)


def test_a_reference_row_without_a_response_is_named(file_store: Store, folder: Path) -> None:
    reference = [*REFERENCE, {"ref_id": "ref-empty", "instruction": "Say nothing.", "response": " "}]
    with pytest.raises(StageError, match="reference row ref-empty") as caught:
        influence(file_store, dict(stage_inputs(file_store, folder, reference=reference)), "exact")
    assert caught.value.code == ExitCode.BAD_DATA


def test_only_warm_up_rows_are_bad_data(file_store: Store, folder: Path) -> None:
    with pytest.raises(StageError, match="no candidate to score") as caught:
        influence(file_store, dict(stage_inputs(file_store, folder, rows=candidates()[-1:])), "exact")
    assert caught.value.code == ExitCode.BAD_DATA


def audited_rows(store: Store, inputs: dict[str, Input]) -> list[dict[str, Any]]:
    from stages.contract.artifact import Artifact

    return Artifact(store, inputs["audit"].key).table().to_pylist()
