"""Real trainings of a tiny Llama under DeepSpeed, against the same written out in plain torch."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.contract.artifact import Artifact
from stages.contract.errors import ExitCode, StageError
from stages.contract.progress import Progress
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from tests.support import model_input, publish, run_stage
from tests.training.rows import COMMON, responses

PROMPT = "<|im_start|>user\nmake one<|im_end|>\n<|im_start|>assistant\n<instruction>"


def pairs(train: int = 8, heldout: int = 3) -> pa.Table:
    count = train + heldout
    return pa.table(
        {
            "prompt": [PROMPT] * count,
            "chosen": [f"Count to {number}." for number in range(count)],
            "rejected": [f"Sing song {number}, and then another one!" for number in range(count)],
            "split": ["train"] * train + ["heldout"] * heldout,
        }
    )


@pytest.fixture
def rows(file_store: Store) -> ArtifactInput:
    return publish(file_store, "responses", tables={"rows": responses()})


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def assert_same_state(artifact: Artifact, tiny_model: Path, settings: Any, cache: Path) -> None:
    import torch

    from stages.influence.state import load_state
    from stages.training.encode import encode_rows
    from tests.training.plain import rows_loss, trained

    encoded = encode_rows(tokenizer(tiny_model), responses().to_pylist(), settings.max_tokens)
    model, optimizer = trained(tiny_model, encoded, settings, rows_loss)
    state = load_state(artifact.folder(cache), model)
    assert state.step == 3 and state.lr == pytest.approx(settings.learning_rate)
    assert (state.betas, state.eps, state.weight_decay) == (settings.betas, settings.eps, settings.weight_decay)
    for name, parameter in model.named_parameters():
        moments = optimizer.state[parameter]
        torch.testing.assert_close(state.weights[name], parameter.detach(), rtol=0, atol=1e-6, msg=name)
        for found, key in ((state.exp_avg, "exp_avg"), (state.exp_avg_sq, "exp_avg_sq")):
            scale = float(moments[key].abs().max())
            torch.testing.assert_close(found[name], moments[key], rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("ranks", [{"ranks": 1, "micro_batch": 2}, {"ranks": 2, "zero_stage": 3}], ids=str)
def test_a_warm_up_is_plain_adamw_on_any_number_of_ranks(
    file_store: Store, rows: ArtifactInput, tiny_model: Path, tmp_path: Path, ranks: dict[str, int]
) -> None:
    from stages.warmup.settings import WarmupSettings

    settings = COMMON | ranks | {"weight_decay": 0.1, "betas": (0.8, 0.95)}
    artifact = run_stage(file_store, "warmup", settings, {"student": model_input(tiny_model), "rows": rows})
    assert_same_state(artifact, tiny_model, WarmupSettings.model_validate(settings), tmp_path)
    # The folder is an ordinary model's as well: the moments are never taken for weights.
    from tests.training.plain import load

    assert load(artifact.folder(tmp_path)).num_parameters() == load(tiny_model).num_parameters()
    assert artifact.manifest.figures["ranks"] == ranks["ranks"]


def test_dpo_is_what_its_paper_says(file_store: Store, tiny_model: Path, tmp_path: Path) -> None:
    import torch

    from stages.dpo.settings import DpoSettings
    from stages.training.encode import encode_pairs
    from tests.training.plain import dpo_loss, load, trained

    settings = DpoSettings.model_validate(COMMON | {"batch": 4, "epochs": 2, "beta": 0.5})
    given = publish(file_store, "pairs", tables={"rows": pairs()})
    artifact = run_stage(file_store, "dpo", settings.model_dump(), {"teacher": model_input(tiny_model), "pairs": given})
    encoded = encode_pairs(tokenizer(tiny_model), pairs().to_pylist()[:8], settings.max_tokens, settings.closing)
    expected, _ = trained(tiny_model, encoded, settings, dpo_loss(load(tiny_model), settings.beta))
    found = load(artifact.folder(tmp_path))
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(found.get_parameter(name).detach(), parameter.detach(), rtol=0, atol=2e-6)
    figures = artifact.manifest.figures
    assert [entry["step"] for entry in figures["rewards"]] == [1, 2, 3, 4]
    assert figures["heldout"]["before"]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert figures["heldout"]["after"]["margin"] > figures["heldout"]["before"]["margin"]


def test_dpo_says_how_far_its_reference_is_and_then_its_steps(
    file_store: Store, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, int, str]] = []
    begin = Progress.begin

    def counting(self: Progress, total: int, **said: Any) -> None:
        counted.append((said["phase"], total, said["unit"]))
        begin(self, total, **said)

    monkeypatch.setattr(Progress, "begin", counting)
    given = publish(file_store, "pairs", tables={"rows": pairs()})
    settings = COMMON | {"batch": 4, "epochs": 2}
    run_stage(file_store, "dpo", settings, {"teacher": model_input(tiny_model), "pairs": given})
    assert counted == [("reference", 11, "pairs"), ("training", 4, "steps")]


def test_two_bf16_ranks_start_at_a_margin_of_zero_and_keep_the_teacher_s_own_files(
    file_store: Store, tiny_model: Path, tmp_path: Path
) -> None:
    given = publish(file_store, "pairs", tables={"rows": pairs()})
    settings = COMMON | {"dtype": "bfloat16", "ranks": 2, "save_dtype": "bfloat16"}
    artifact = run_stage(file_store, "dpo", settings, {"teacher": model_input(tiny_model), "pairs": given})
    # A reference log-probability rounded to bfloat16 on its way would show here.
    before = artifact.manifest.figures["heldout"]["before"]
    assert before["margin"] == pytest.approx(0, abs=1e-6)
    folder = artifact.folder(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (tiny_model / name).read_bytes(), name
    assert '"dtype": "bfloat16"' in (folder / "config.json").read_text()
    assert 0 < artifact.manifest.figures["weights_changed"] < 1


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    file_store: Store, rows: ArtifactInput, tiny_model: Path, tmp_path: Path
) -> None:
    from tests.training.plain import load

    model = load(tiny_model)
    model.model.norm.weight.data[0] = float("nan")
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    model.save_pretrained(broken)
    with pytest.raises(StageError, match="the loss is nan at step 1 of 3") as caught:
        run_stage(file_store, "sft", COMMON, {"student": model_input(broken), "rows": rows})
    assert caught.value.code == ExitCode.GATE


def test_rows_that_are_too_long_do_not_make_fewer_than_were_asked_for(file_store: Store, tiny_model: Path) -> None:
    long = ["1 2 3 " * 60 if number < 4 else "1 2 3" for number in range(10)]
    given = publish(file_store, "responses", tables={"rows": responses(response=long)})
    inputs = {"student": model_input(tiny_model), "rows": given}
    figures = run_stage(file_store, "sft", COMMON | {"rows": 4}, inputs).manifest.figures
    assert (figures["rows"], figures["dropped"]) == (4, {"too_long": 4})


@pytest.mark.parametrize(
    ("table", "settings", "code", "words"),
    [
        (responses(usable=[False] * 10), {}, ExitCode.BAD_DATA, "no row to train on"),
        (responses(), {"rows": 11}, ExitCode.BAD_DATA, "11 rows were asked for and 10 are usable"),
        (responses(), {"ranks": 3}, ExitCode.BAD_SETTINGS, "a batch of 4 rows cannot be dealt out to 3 ranks"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_loads(
    file_store: Store, tiny_model: Path, table: pa.Table, settings: dict[str, int], code: ExitCode, words: str
) -> None:
    given = publish(file_store, "responses", tables={"rows": table})
    began = time.monotonic()
    with pytest.raises(StageError, match=words) as caught:
        run_stage(file_store, "sft", COMMON | settings, {"student": model_input(tiny_model), "rows": given})
    assert caught.value.code == code
    assert time.monotonic() - began < 5
