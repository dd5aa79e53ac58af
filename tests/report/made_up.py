"""A whole made-up run in a store: every node's artifact with coherent ids, figures and costs, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.contract.artifact import Artifact
from stages.contract.canonical import content_id
from stages.contract.ledger import Meter
from stages.contract.store import Store
from stages.contract.task import ArtifactInput
from tests.support import publish

Row = dict[str, Any]
Figures = dict[str, Any]
TOPICS = ("a river", "compound interest", "noise-cancelling headphones", "a polite refusal", "a Python function")
VERBS = ("Explain", "Write a short text about", "List five facts about", "Compare two views on", "Summarise")
SECONDS = {"instructions": 140, "responses": 210, "warmup": 60, "audit": 25, "influence": 70, "dpo": 55, "sft": 45}
TEACHER = {"model": "builtin:smollm2", "revision": None, "drop_layers": []}
STUDENT = {"model": "builtin:smollm2", "revision": None, "drop_layers": list(range(12, 22))}
RECIPE = {"name": "quickstart", "iterations": 1, "compare": ["self-instruct"], "teacher": TEACHER, "student": STUDENT}


@dataclass(frozen=True)
class MadeUpRun:
    """What a sequencer would know of the run."""

    artifacts: dict[str, ArtifactInput]
    inputs: dict[str, dict[str, str | None]]  # node -> input name -> node, None for a model
    folders: dict[str, Path]

    def settings(self) -> Figures:
        edges = [
            [source, node, name]
            for node, inputs in self.inputs.items()
            for name, source in inputs.items()
            if source in self.artifacts and node in self.artifacts
        ]
        return {"title": "Quickstart", "run": "quickstart", "recipe": RECIPE, "edges": edges}

    def report_inputs(self) -> dict[str, ArtifactInput]:
        return {f"node.{name}": artifact for name, artifact in self.artifacts.items()}

    def resolved(self, **outputs: str) -> Figures:
        """What runs/RUN/resolved.json holds."""
        nodes = {
            name: {
                "stage": artifact.key.split("/")[1],
                "key": artifact.key,
                "digest": artifact.digest,
                "inputs": {
                    each: {"node": source} if source else {"model": TEACHER if each == "teacher" else STUDENT}
                    for each, source in self.inputs[name].items()
                },
            }
            for name, artifact in self.artifacts.items()
        }
        return {"run": "quickstart", "nodes": nodes, "outputs": outputs}


class _Maker:
    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = np.random.default_rng(seed)
        self.artifacts: dict[str, ArtifactInput] = {}
        self.inputs: dict[str, dict[str, str | None]] = {}

    def add(
        self,
        name: str,
        inputs: Mapping[str, str | None],
        tables: Mapping[str, list[Row]] | None = None,
        figures: Figures | None = None,
        *,
        folder: Path | None = None,
        rows_in: int = 0,
    ) -> None:
        stage = name.rpartition(".")[2]
        made = {table: _table(rows) for table, rows in (tables or {}).items()}
        kept = made["rows"].num_rows if "rows" in made else 0
        given = {each: self.artifacts[source] for each, source in inputs.items() if source}
        self.inputs[name] = dict(inputs)
        self.artifacts[name] = publish(
            self.store, stage, tables=made, folder=folder, figures=figures, inputs=given,
            meter=_meter(SECONDS.get(stage, 0.4) * self.random.uniform(0.8, 1.2), rows_in or kept, kept),
        )  # fmt: skip

    def prepare(self) -> None:
        seeds = [
            {"seed_id": content_id("seed", n), "instruction": f"Seed task {n}.", "response": f"Answer {n}."}
            for n in range(175)
        ]
        reference = [
            {"ref_id": content_id("ref", n), "instruction": f"Question {n}?", "response": f"Because of {n}."}
            for n in range(64)
        ]
        dropped = {
            "source": "seeds",
            "line": 17,
            "reason": "duplicate",
            "detail": "line 3",
            "instruction": "Seed task 3.",
        }
        tables = {"seeds": seeds, "probe": reference[:33], "heldout": reference[33:], "dropped": [dropped]}
        self.add("prepare", {}, tables, rows_in=240)

    def data(self, branch: str, teacher: str | None, *, prompts: int, samples: int, answers: int) -> None:
        """The nodes instructions, curate and responses of a branch."""
        wrote = self.artifacts[teacher].digest if teacher else "0" * 64
        instructions = [self._instruction(p, s, wrote) for p in range(prompts) for s in range(samples)]
        self.add(f"{branch}.instructions", {"seeds": "prepare", "teacher": teacher}, {"rows": instructions})
        parsed = [row for row in instructions if row["reason"] is None]
        columns = ("instruction_id", "prompt_id", "prompt", "output", "instruction")
        split = "train" if branch in ("tailored", "self-instruct") else None
        kept = [
            {**{name: row[name] for name in columns}, "split": split or ("warmup" if n % 5 == 0 else "candidate")}
            for n, row in enumerate(parsed[:-4])
        ]
        dropped = [_dropped(row, "unparsed", row["reason"], None) for row in instructions if row["reason"]]
        dropped += [_dropped(row, "duplicate", kept[0]["instruction"], 0.83) for row in parsed[-4:]]
        self.add(
            f"{branch}.curate",
            {"instructions": f"{branch}.instructions", "seeds": "prepare"},
            {"rows": kept, "dropped": dropped},
            rows_in=len(instructions),
        )
        responses = [self._response(row, sample, wrote) for row in kept for sample in range(answers)]
        self.add(f"{branch}.responses", {"instructions": f"{branch}.curate", "teacher": teacher}, {"rows": responses})

    def influence(self, branch: str, *, shift: float) -> None:
        rows = self._rows(branch, "responses")
        effects: dict[str, float] = {}
        scored = []
        for row in rows:
            if row["split"] == "warmup" or not row["usable"]:
                continue
            own = effects.setdefault(row["instruction_id"], float(self.random.gamma(2.0, 5e-4)))
            score = own + float(self.random.normal(shift - 4e-4, 5e-4))
            exact = score * 1.02 + float(self.random.normal(0, 4e-5))
            long = len(scored) == 7
            scored.append(
                {name: row[name] for name in ("response_id", "instruction_id", "prompt_id")}
                | {
                    "method": "exact",
                    "score": None if long else exact,
                    "stderr": 3e-4,
                    "first_order": score,
                    "exact": exact,
                }
                | {"noise": 2e-6, "tie": abs(exact) < 4e-6, "loss": 2.1, "tokens": 90, "reference_nll": [1.0, 2.0]}
                | {"reason": "no_response_token_left: the prompt alone has 600 tokens" if long else None}
            )
        inputs = {"rows": f"{branch}.responses", "checkpoint": "it1.warmup", "reference": "prepare"}
        if f"{branch}.audit" in self.artifacts:
            inputs["audit"] = f"{branch}.audit"
        self.add(
            f"{branch}.influence", inputs, {"rows": scored}, {"method": "two_stage", "asked": "two_stage", "audit": {}}
        )

    def judge(self) -> None:
        """A second signal on the candidates of it1.influence, that agrees with it somewhat."""
        columns = ("response_id", "instruction_id", "prompt_id", "tie", "tokens", "reason")
        scored = [
            {name: row[name] for name in columns}
            | {"method": "judge", "stderr": 0.3, "noise": None}
            | {"score": row["score"] and round(2.5 + 800 * row["score"] + float(self.random.normal(0, 0.6)))}
            for row in self._rows("it1", "influence")
        ]
        figures = {"method": "judge", "outputs": 3 * len(scored), "parsed": 2 * len(scored), "reasons": {"no_score": 9}}
        self.add("it1.judge", {"rows": "it1.responses", "judge": None}, {"rows": scored}, figures)

    def diversity(self, branch: str) -> None:
        rows = self._rows(branch, "responses")
        contaminated = {"response_id": rows[0]["response_id"], "column": "instruction"}
        contaminated |= {"evaluation": "reference heldout", "run": "because of the <tide> and the moon"}
        figures: Figures = {
            "texts": 140, "distinct": {"1": 0.31, "2": 0.62, "3": 0.8}, "self_rouge": 0.41, "clusters": 77,
            "largest_cluster": 0.08, "rows": len(rows), "contaminated": 1, "contaminated_share": 1 / len(rows),
            "contaminated_by": {"reference heldout": 1, "reference probe": 2},
            "like_probe": 2,
        }  # fmt: skip
        figures["responses"] = {
            name: figures[name] for name in ("texts", "distinct", "self_rouge", "clusters", "largest_cluster")
        }
        inputs = {"instructions": f"{branch}.instructions", "rows": f"{branch}.responses", "reference": "prepare"}
        self.add(f"{branch}.diversity", inputs, {"contaminated": [contaminated]}, figures)

    def audit(self) -> None:
        rows = []
        for row in self._rows("it1", "responses")[:32]:
            first = float(self.random.gamma(2.0, 5e-4)) - 3e-4
            rows.append(
                {"response_id": row["response_id"], "first_order": first}
                | {"exact": first * 1.02 + float(self.random.normal(0, 4e-5))}
            )
        figures = {
            "candidates": 32, "spearman": 0.993, "pearson": 0.998, "recall_top": 1.0, "recall_bottom": 0.67,
            "intercept": 1e-6, "slope": 1.02, "residual": 4e-5, "spread": 7e-4, "threshold": 0.9,
            "decision": "two_stage", "reference_rows": 33, "corrected_rows": 9,
            "corrected": {
                "candidates": 32, "spearman": 0.998, "pearson": 0.9991, "recall_top": 1.0, "recall_bottom": 1.0,
                "intercept": 0.0, "slope": 1.001, "residual": 1e-5, "spread": 7e-4, "threshold": 0.9,
                "decision": "two_stage",
            },
            "noise": {"exact": 2e-6, "corrected": 3e-6, "first_order": 1e-9},
        }  # fmt: skip
        inputs = {"rows": "it1.responses", "checkpoint": "it1.warmup", "reference": "prepare"}
        self.add("it1.audit", inputs, {"rows": rows}, figures)

    def preferences(self) -> None:
        """The nodes aggregate and pairs."""
        texts = {row["instruction_id"]: row for row in self._rows("it1", "curate")}
        scores: dict[str, list[float]] = {}
        for row in self._rows("it1", "influence"):
            if row["score"] is not None:
                scores.setdefault(row["instruction_id"], []).append(row["score"])
        means = [
            {name: texts[each][name] for name in ("instruction_id", "prompt_id", "instruction", "output", "prompt")}
            | {"n": len(values), "score": float(np.mean(values)), "stderr": 3e-4, "noise": 1e-6}
            for each, values in scores.items()
        ]
        self.add(
            "it1.aggregate",
            {"scores": "it1.influence", "instructions": "it1.curate"},
            {"rows": means},
            _reliability(0.44, 3.0),
        )
        pairs = []
        for prompt in dict.fromkeys(row["prompt_id"] for row in means):
            group = sorted((row for row in means if row["prompt_id"] == prompt), key=lambda row: row["score"])
            if len(group) > 1:
                pairs.append(_pair(group[-1], group[0], "heldout" if len(pairs) % 10 == 0 else "train"))
        splits = {name: sum(pair["split"] == name for pair in pairs) for name in ("train", "heldout")}
        self.add("it1.pairs", {"scores": "it1.aggregate"}, {"rows": pairs}, {"splits": splits, "ties": 3})

    def trained(
        self, name: str, inputs: Mapping[str, str | None], folder: Path, start: float, end: float, rows: int = 96
    ) -> None:
        steps = 48
        curve = [
            {"step": n + 1, "loss": start + (end - start) * n / steps + float(self.random.normal(0, 0.06)), "lr": 1e-5}
            for n in range(steps)
        ]
        figures: Figures = {
            "steps": steps, "batch": 4, "rows": rows, "dropped": {"too_long": 2}, "tokens": 21000, "loss": curve,
        }  # fmt: skip
        if name.endswith("dpo"):
            sides = {"loss": 0.693, "accuracy": 0.0, "margin": 0.0}, {"loss": 0.66, "accuracy": 0.67, "margin": 0.08}
            figures["heldout"] = {"pairs": 6, "before": sides[0], "after": sides[1]}
            figures["checkpoints"] = [{"folder": "checkpoint-1", "step": 24}]
        self.add(name, inputs, figures=figures, folder=folder)

    def evaluate(self, branches: list[str], gain: float, *, name: str = "evaluate") -> None:
        values = {"base": 5.0031, "self-instruct": 4.2522, "tailored": 4.2522 - gain, "checkpoint-1": 4.2522 - gain / 2}
        names = ["base", *branches]
        students = {
            name: {"value": values[name], "low": values[name] - 0.21, "high": values[name] + 0.22}
            | {"nll": 9000.0, "tokens": 3100, "rows": 31}
            for name in names
        }
        differences = [
            {"first": a, "second": b, "value": values[a] - values[b]}
            | {"low": values[a] - values[b] - 0.011, "high": values[a] - values[b] + 0.012}
            for n, a in enumerate(names)
            for b in names[n + 1 :]
        ]
        inputs: dict[str, str | None] = {f"student.{name}": f"{name}.sft" for name in branches}
        inputs |= {"student.base": None, "reference": "prepare"}
        rows = [{"student": name, "ref_id": str(n), "nll": 1.0, "tokens": 100} for name in names for n in range(31)]
        figures = {"students": students, "differences": differences, "confidence": 0.95}
        self.add(name, inputs, {"rows": rows}, figures)

    def comparison(self, branches: list[str], gain: float) -> None:
        names = ["base", "self-instruct", *(name for name in branches if name != "self-instruct")]
        cells = [
            _cell("loss", name, {"base": 5.0031, "tailored": 4.2522 - gain}.get(name, 4.2522), best=name == "tailored")
            for name in names
        ]
        cells += [
            _cell("lc_winrate", name, 58.25 if name == "tailored" else 50.0, best=name == "tailored") for name in names
        ]
        cells += [_cell("mtbench", name, 2.0, best=False) for name in names[:-1]]
        figures = {
            "baseline": "self-instruct", "confidence": 0.95,
            "read": {
                "winrate": {"rows": 62, "reasons": {"no_verdict": 3}, "columns": 2},
                "losses": {"rows": 93, "reasons": {}, "columns": 1},
                "harness": {"rows": 4, "reasons": {}, "columns": 0},
            },
        }  # fmt: skip
        self.add("comparison", {"losses": "evaluate"}, {"cells": cells}, figures)

    def _instruction(self, prompt: int, sample: int, teacher: str) -> Row:
        prompt_id = content_id("prompt", prompt)
        text = f"{VERBS[sample % 5]} {TOPICS[prompt % 5]}, number {prompt}."
        failed = (prompt * 7 + sample) % 23 == 0
        return {
            "instruction_id": content_id("instruction", prompt_id, sample, teacher),
            "prompt_id": prompt_id,
            "prompt": f"<|im_start|>user\nWrite one more task like these {prompt}.<|im_end|>\n<instruction>",
            "seed_ids": [content_id("seed", (prompt * 8 + n) % 175) for n in range(8)],
            "sample": sample,
            "sampling_seed": 1000 * prompt + sample,
            "output": f"{text}\nBe <brief> & clear.",
            "instruction": None if failed else text,
            "reason": "no_closing_tag" if failed else None,
            "finish_reason": "length" if failed else "stop",
            "prompt_tokens": 210,
            "output_tokens": 40,
            "teacher": teacher,
        }

    def _response(self, row: Row, sample: int, teacher: str) -> Row:
        response_id = content_id("response", row["instruction_id"], sample, teacher)
        usable = int(response_id, 16) % 29 != 0
        return {
            "response_id": response_id,
            "instruction_id": row["instruction_id"],
            "prompt_id": row["prompt_id"],
            "sample": sample,
            "sampling_seed": int(response_id[:6], 16),
            "instruction": row["instruction"],
            "response": f"{row['instruction']} Here is an answer of some length, number {sample}." if usable else "",
            "finish_reason": "stop" if usable else "length",
            "usable": usable,
            "reason": None if usable else "truncated",
            "prompt_tokens": 30,
            "output_tokens": 80,
            "split": row["split"],
            "teacher": teacher,
        }

    def _rows(self, branch: str, stage: str) -> list[Row]:
        rows: list[Row] = Artifact(self.store, self.artifacts[f"{branch}.{stage}"].key).table().to_pylist()
        return rows


def made_up_run(
    store: Store,
    tmp_path: Path,
    *,
    gain: float = 0.031,
    shift: float = 2.4e-4,
    prompts: int = 36,
    seed: int = 0,
    transfer: tuple[str, ...] = (),
) -> MadeUpRun:
    """A quickstart-like run: one iteration, the tailored branch and the baseline.

    Args:
        gain: by how much the tailored student's held-out loss is below the baseline's (interval ± 0.0115).
        shift: by how much the mean influence of the tailored data is above that of the others.
        transfer: further students on the same data.
    """
    folders = {name: _model_folder(tmp_path / name, name) for name in ("warmup", "dpo", "tailored", "self-instruct")}
    maker = _Maker(store, seed)
    maker.prepare()
    maker.data("it1", None, prompts=prompts, samples=4, answers=3)
    maker.trained("it1.warmup", {"student": None, "rows": "it1.responses"}, folders["warmup"], 5.0, 4.3)
    maker.audit()
    maker.influence("it1", shift=0.0)
    maker.judge()
    maker.preferences()
    maker.trained("it1.dpo", {"teacher": None, "pairs": "it1.pairs"}, folders["dpo"], 0.69, 0.62)
    for branch, teacher in (("tailored", "it1.dpo"), ("self-instruct", None)):
        maker.data(branch, teacher, prompts=prompts, samples=4, answers=1)
        maker.diversity(branch)
        maker.influence(branch, shift=shift if branch == "tailored" else 0.0)
        maker.trained(f"{branch}.sft", {"student": None, "rows": f"{branch}.responses"}, folders[branch], 5.0, 4.2)
    maker.data("checkpoint-1", "it1.dpo", prompts=12, samples=4, answers=1)
    maker.influence("checkpoint-1", shift=shift / 2)
    maker.trained(
        "checkpoint-1.sft", {"student": None, "rows": "checkpoint-1.responses"}, folders["tailored"], 5.0, 4.2, rows=48
    )
    maker.evaluate(["tailored", "self-instruct", "checkpoint-1"], gain)
    for name in transfer:
        maker.evaluate(["tailored", "self-instruct"], gain, name=f"transfer.{name}")
    maker.comparison(["tailored", "self-instruct"], gain)
    return MadeUpRun(maker.artifacts, maker.inputs, folders)


def _model_folder(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(name.encode() * 400_000)
    return folder


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows)


def _dropped(row: Row, reason: str, detail: str, score: float | None) -> Row:
    return {"instruction_id": row["instruction_id"], "instruction": row["instruction"]} | {
        "reason": reason, "detail": detail, "score": score,
    }  # fmt: skip


_TITLES = {"loss": "held-out loss", "lc_winrate": "LC win rate", "mtbench": "MT-Bench"}


def _cell(measure: str, student: str, value: float, *, best: bool) -> Row:
    return {
        "measure": measure, "title": _TITLES[measure], "better": "lower" if measure == "loss" else "higher",
        "decimals": {"loss": 4, "lc_winrate": 1}.get(measure, 2), "note": "31 questions.", "student": student,
        "value": value, "low": value - 0.2, "high": value + 0.2, "items": 31, "seeds": 1, "best": best,
        "like_best": None if best else student == "self-instruct",
        "like_baseline": None if student == "self-instruct" else student == "tailored",
    }  # fmt: skip


def _pair(best: Row, worst: Row, split: str) -> Row:
    gap = best["score"] - worst["score"]
    return {
        "pair_id": content_id("pair", best["instruction_id"], worst["instruction_id"]),
        "prompt_id": best["prompt_id"], "prompt": best["prompt"], "chosen": best["output"], "rejected": worst["output"],
        "chosen_id": best["instruction_id"], "rejected_id": worst["instruction_id"], "chosen_score": best["score"],
        "rejected_score": worst["score"], "gap": gap, "gap_stderr": 4.2e-4, "split": split,
    }  # fmt: skip


def _reliability(one: float | None, responses: float) -> Figures:
    def of_mean(k: float) -> float | None:
        return None if one is None else k * one / (1 + (k - 1) * one)

    share = (
        {"prompt": 0.11, "instruction": 0.33, "response": 0.56}
        if one
        else dict.fromkeys(("prompt", "instruction", "response"))
    )
    reliability = {
        "one_response": one, "low": one and one - 0.12, "high": one and one + 0.13, "mean": of_mean(responses),
        "by_responses": {str(k): of_mean(k) for k in (1, 2, 4, 8)},
    }  # fmt: skip
    return {
        "instructions": 112, "responses": responses, "reliability": reliability,
        "within_prompt_reliability": reliability,
        "components": {name: {"name": name, "variance": 1e-7, "share": value} for name, value in share.items()},
    }  # fmt: skip


def _meter(seconds: float, rows_in: int, rows_kept: int) -> Meter:
    meter = Meter()
    meter._seconds = {"load": seconds * 0.2, "compute": seconds * 0.75, "upload": seconds * 0.05}
    meter._device_seconds = seconds * 0.75
    meter.count(tokens=rows_kept * 120, rows_in=rows_in, rows_kept=rows_kept)
    meter.peak(int(2.3 * 2**30))
    return meter
