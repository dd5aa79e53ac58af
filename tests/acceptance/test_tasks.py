"""ARTE in one run: real stages on random models of 40,000 weights, from tasks made by rule to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.running import run_to_end
from tests.cluster.tiny import write
from tests.support import tiny_llama

ANSWERS = (" True.", " False.", " 2.", " 3.", " 4.", " 5.")
LIMIT_S = 1200.0


def answering(folder: Path, seed: int) -> Path:
    """A random model that most likely writes one of the answers next; which one hangs on all that stands before."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tiny_llama(folder, seed=seed, length=1024, words=("</question>", *ANSWERS))
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.mul_(8)
        model.get_input_embeddings().weight[AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(ANSWERS)] *= 50
    model.save_pretrained(folder)
    return folder


def recipe(folder: Path) -> dict[str, Any]:
    engine = {"kind": "transformers", "max_model_len": 1024, "dtype": "float32", "batch_size": 16}
    training = {"dtype": "float32", "batch": 4, "max_tokens": 1024, "micro_batch": 2, "learning_rate": 1e-3}
    teacher = tiny_llama(folder / "teacher", seed=1, length=1024, words=("</question>", *ANSWERS))
    return {
        "method": "arte",
        "teacher": {"model": str(teacher)},
        "student": {"model": str(answering(folder / "student", 2))},
        "compare": ["self-instruct", "no-finetuning"],
        "measure": False,
        "tasks": {
            "tasks": {name: {"rule": name} for name in ("boolean_expressions", "object_counting")},
            "seeds": 4,
            "validation": 8,
            "test": 8,
        },
        "panel": {
            "models": {
                "student": {"model": str(folder / "student")},
                "other": {"model": str(answering(folder / "other", 3))},
            },
            "shots": [0, 1],
        },
        "irt": {"size": 6},
        # A random teacher writes noise, and the closing tag, which is one token of it, now and then.
        "questions": {
            "engine": engine,
            "prompts": 24,
            "examples": 1,
            "more": 2,
            "template": "{{ examples[0] }}",
            "least_parsed": 0.01,
            "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 120},
        },
        "select": {"per_task": 8, "most_characters": 400},
        "rationales": {
            "engine": engine,
            "prefill": "So the answer is True, that is 3.\n",
            "keep_truncated": True,
            "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 16},
        },
        "answers": {"engine": engine, "shots": [0, 1]},
        "incontext": {"engine": engine},
        "preferences": {"question_pairs": 4, "rationale_pairs": 6, "heldout_share": 0},
        "dpo": training,
        "sft": training,
        "fresh": {"questions": {"seed": 1}},
        "run": {"jobs": 2},
    }


def test_a_teacher_is_tailored_on_tasks_and_its_students_answers_end_in_a_report(tmp_path: Path) -> None:
    made = run_to_end(write(tmp_path, "tasks", recipe(tmp_path)), tmp_path, LIMIT_S)
    scores = made["it1.incontext"].table().to_pylist()
    assert len({row["score"] for row in scores} - {None}) > 1
    assert {row["kind"] for row in made["it1.preferences"].table().to_pylist()} == {"question", "rationale"}
    assert made["tailored.diversity"].manifest.figures["kept"].keys() >= {"all tasks"}
    paid = {made[f"{name}.budget"].manifest.tables["rows"] for name in ("tailored", "self-instruct")}
    assert len(paid) == 1 and paid != {0}, "all on equal rows"

    levels = made["accuracy"].table("levels").to_pylist()
    assert {(row["student"], row["shots"]) for row in levels if row["level"] == "all"} == {
        (student, shots) for student in ("base", "tailored", "self-instruct") for shots in (0, 1)
    }
    assert len({row["student"] for row in made["comparison"].table("cells").to_pylist()}) == 3
    html = next((tmp_path / "runs").rglob("report.html")).read_text()
    assert "Right answers by task and category" in html and "Pairs by task" in html
    assert "it1.select: fewer new questions than asked for" in html or not made["it1.select"].manifest.figures["short"]
